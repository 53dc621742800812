"""Scores the answers of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from verl_rsim.evaluation.dataset import EvaluationQuestion
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
    if is_coding_task(question.data_source, question.ability):
        verdict = scorer.score(text, question.truth, question.data_source, question.ability)
        return ScoredAnswer(verdict.accuracy, verdict.reason, None)
    explanation = scorer.math.explain(text, question.truth, question.data_source)
    return ScoredAnswer(explanation.verdict.accuracy, explanation.reason, explanation.vote)
