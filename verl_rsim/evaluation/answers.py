"""Scores answers, and converts them to one spelling so that equal answers count as one vote of maj@k."""

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
class ScoredAnswer:
    """Holds the verdict on an answer.

    Attributes:
        correct: 1.0 if the answer is right, else 0.0.
        reason: the scorer's reason, e.g. "right", "wrong", "no_answer".
        vote: the answer in its canonical spelling; None if the text states no answer, or is a program.
    """

    correct: float
    reason: str
    vote: str | None


def score_answer(text: str, question: EvaluationQuestion, scorer: Scorer) -> ScoredAnswer:
    """Scores an answer; blocks until the worker process or the sandbox has finished.

    Raises:
        TruthError, SandboxError: see :meth:`verl_rsim.reward.scorer.Scorer.score`.
    """
    verdict = scorer.score(text, question.truth, question.data_source, question.ability)
    if is_coding_task(question.data_source, question.ability):
        return ScoredAnswer(verdict.accuracy, verdict.reason, None)
    kind = resolve(scorer.math.answer_type(question.data_source), question.truth)
    return ScoredAnswer(verdict.accuracy, verdict.reason, canonical_answer(text, kind))


def canonical_answer(text: str, kind: AnswerType) -> str | None:
    """Returns the answer that a text states in its canonical spelling, or None if it states none.

    1,000 and 1000.0 have the same spelling, as have (B) and B. Answers that only a computer algebra system knows to be
    equal have different ones.
    """
    answer = find_answer(text, fallback(kind))
    plain = tidy(answer) if answer is not None else ""
    if not plain:
        return None
    if kind is AnswerType.OPTION:
        return option(plain)
    if kind in (AnswerType.BOOL, AnswerType.YES_NO):
        value = truth_value(plain)
        return None if value is None else str(value)
    if kind in (AnswerType.STRING, AnswerType.DATE):
        return words(plain)
    number = quantity(plain)
    if number:
        return f"{number.value} {number.currency}{number.unit}".strip()
    return squash(plain)
