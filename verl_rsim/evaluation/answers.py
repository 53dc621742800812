"""Scoring an answer, and the spelling under which equal answers are counted as one vote."""

from __future__ import annotations

from dataclasses import dataclass

from verl_rsim.evaluation.dataset import EvaluationQuestion
from verl_rsim.reward.math_grading.compare import AnswerType, fallback, resolve
from verl_rsim.reward.math_grading.extract import find_answer
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import squash, tidy, words
from verl_rsim.reward.math_grading.quantities import quantity
from verl_rsim.reward.scorer import Scorer, is_coding_task


@dataclass(frozen=True, slots=True)
class Scored:
    """The verdict on an answer, and what it votes for: None if it states nothing, or is a program."""

    correct: float
    reason: str
    vote: str | None


def score(text: str, question: EvaluationQuestion, scorer: Scorer) -> Scored:
    """Score an answer; blocks.

    Raises:
        TruthError, SandboxError: see :meth:`verl_rsim.reward.scorer.Scorer.score`.
    """
    verdict = scorer.score(text, question.truth, question.data_source, question.ability)
    if is_coding_task(question.data_source, question.ability):
        return Scored(verdict.accuracy, verdict.reason, None)
    kind = resolve(scorer.math.answer_type(question.data_source), question.truth)
    return Scored(verdict.accuracy, verdict.reason, vote(text, kind))


def vote(text: str, kind: AnswerType) -> str | None:
    """The answer a text states, in one spelling: 1,000 and 1000.0 are one vote, as are (B) and B.

    Answers that only a computer algebra system knows to be equal are different votes.
    """
    found = find_answer(text, fallback(kind))
    if found is None or not (plain := tidy(found)):
        return None
    if kind is AnswerType.OPTION:
        return option(plain)
    if kind in (AnswerType.BOOL, AnswerType.YES_NO):
        value = truth_value(plain)
        return None if value is None else str(value)
    if kind in (AnswerType.STRING, AnswerType.DATE):
        return words(plain)
    if number := quantity(plain):
        return f"{number.value} {number.currency}{number.unit}".strip()
    return squash(plain)
