"""Scores answers to questions with a verifiable answer: mathematics, numbers, options and more.

The answer is extracted from the text (:mod:`.extract`) and compared by the rules of its type (:mod:`.compare`), with
sympy where that takes algebra. All of it happens in worker processes that can be killed (:mod:`.worker_pool`).
The scorer does not see the question, so an answer that merely rewrites a symbolic question is right if it equals the
truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from verl_rsim.reward.math_grading.answer_types import DEFAULT_TYPE, SOURCES, AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.extract import excerpt, last_boxed
from verl_rsim.reward.math_grading.worker_pool import TaskStatus, WorkerPool
from verl_rsim.reward.verdict import Verdict

__all__ = ["DEFAULT_TYPE", "SOURCES", "MathScorer", "last_boxed"]

_UNANSWERED = frozenset({"no_answer", "ambiguous"})
_STATUS_REASONS = {TaskStatus.TIMEOUT: "timeout", TaskStatus.CRASH: "crash"}
MEMORY_BYTES = 1 << 30
"""Address space of a worker."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explains a verdict.

    Attributes:
        reason: reason of the verdict, see :meth:`MathScorer.score`.
        kind: type by which the answer was extracted and compared.
        answer: the answer as the text has it; None if it has none, or the scorer could not decide.
        place: where it stands, in words; "" if it is not known.
        method: how it was compared, in words; None if it was not.
        vote: the answer in its canonical spelling (:mod:`.canonical`).
    """

    reason: str
    kind: AnswerType
    answer: str | None = None
    place: str = ""
    method: str | None = None
    vote: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict without its explanation."""
        return Verdict(float(self.reason == "right"), self.reason not in _UNANSWERED, self.reason)


class MathScorer:
    """Scores answers; thread-safe, and bounded in time and memory whatever the text holds.

    Args:
        workers: number of processes that compare. They start at once and are warm before their first answer.
        timeout: seconds of wall clock for one answer; one that takes longer is wrong.
        sources: ``data_source``, or a shell pattern of it -> type of its answers; see :class:`.AnswerTypes`.
        tolerance: relative tolerance of FLOAT, FINANCIAL and LIST answers.
        memory_bytes: address space of a worker.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        workers: int = 1,
        timeout: float = 3.0,
        sources: Mapping[str, AnswerType] | None = None,
        tolerance: float = 0.01,
        memory_bytes: int = MEMORY_BYTES,
    ):
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a finite number of seconds above 0, got {timeout}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {tolerance}")
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        self.timeout, self.tolerance = timeout, tolerance
        self.types = AnswerTypes(sources)
        self._pool = WorkerPool("verl_rsim.reward.math_grading.worker", workers, timeout, memory_bytes)

    def score(self, text: str, truth: str, data_source: str | AnswerType | None = None) -> Verdict:
        """Compares a text's answer with the ground truth; blocks until a worker is free.

        Args:
            text: the reasoner's whole text.
            truth: ground truth.
            data_source: the row's source, or the type of its answer.

        Returns:
            A verdict with the reason "right", "wrong", "no_answer", "ambiguous" (an alternative follows the answer),
            "too_long", or, if the scorer could not decide, "timeout" or "crash".

        Raises:
            TruthError: the ground truth cannot be used.
        """
        return self.explain(text, truth, data_source).verdict

    def explain(self, text: str, truth: str, data_source: str | AnswerType | None = None) -> Explanation:
        """Does what :meth:`score` does, and says what was extracted and how it was compared."""
        kind = self.types.check_truth(truth, data_source)
        result = self._pool.run(excerpt(text), truth, kind.value, self.tolerance)
        if result.status is not TaskStatus.DONE:
            return Explanation(_STATUS_REASONS[result.status], kind)
        return Explanation(kind=kind, **result.value)

    def check_truth(self, truth: str, data_source: str | AnswerType | None = None) -> None:
        """Checks a ground truth, e.g. when data is prepared.

        Raises:
            TruthError: the ground truth cannot be used: it is empty, or not of its type.
        """
        self.types.check_truth(truth, data_source)

    def answer_type(self, data_source: str | AnswerType | None) -> AnswerType:
        """Returns the type of a source's answers; for an unknown source the default, with one warning."""
        return self.types.of(data_source)

    def close(self) -> None:
        """Kills the workers."""
        self._pool.close()
