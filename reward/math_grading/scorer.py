"""Whether a text gives the right answer to a question with a verifiable one: mathematics, numbers, options and more.

The text's answer is found (:mod:`.extract`), then compared by the rules of its type (:mod:`.answers`) and, where it
takes algebra, by math-verify, in worker processes that can be killed (:mod:`.worker_pool`).
It does not see the question: an answer that merely rewrites a symbolic question is right if it equals the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from verl_rsim.reward.math_grading.answer_types import DEFAULT_TYPE, SOURCES, AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType, fallback
from verl_rsim.reward.math_grading.extract import find_answer, last_boxed
from verl_rsim.reward.math_grading.worker_pool import Ending, WorkerPool
from verl_rsim.reward.verdict import Verdict

__all__ = ["DEFAULT_TYPE", "SOURCES", "MathScorer", "last_boxed"]

MAX_ANSWER_CHARS = 300
"""A longer answer is no answer, unless the truth is about as long."""
MEMORY_BYTES = 1 << 30


class MathScorer:
    """Scores answers; thread-safe, and bounded in time and memory whatever the text holds.

    Args:
        workers: processes that compare. They start at once and are warm before their first answer.
        timeout: seconds of wall clock for one answer; one that takes longer is wrong.
        sources: ``data_source`` or a shell pattern of it to the type of its answers; see :class:`.AnswerTypes`.
        tolerance: relative, of FLOAT, FINANCIAL and LIST answers.
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
        """Whether a text's answer is the ground truth; blocks until one of the workers is free.

        Args:
            data_source: the row's source, or the type of its answer.

        Returns:
            A verdict with the reason "right", "wrong", "no_answer", "too_long", "timeout" or "crash".

        Raises:
            TruthError: the ground truth is of no use.
        """
        kind = self.types.check_truth(truth, data_source)
        answer = find_answer(text, fallback(kind))
        if answer is None:
            return Verdict(0.0, False, "no_answer")
        if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(truth)):
            return Verdict(0.0, True, "too_long")
        outcome = self._pool.run(answer, truth, kind.value, self.tolerance)
        if outcome.ending is not Ending.DONE:
            return Verdict(0.0, True, outcome.ending.value)
        right = outcome.value
        return Verdict(float(right), True, "right" if right else "wrong")

    def check_truth(self, truth: str, data_source: str | AnswerType | None = None) -> None:
        """Check a ground truth, at data preparation.

        Raises:
            TruthError: it cannot be used: empty, or not of its type.
        """
        self.types.check_truth(truth, data_source)

    def answer_type(self, data_source: str | AnswerType | None) -> AnswerType:
        """The type of a source's answers; the default, with one warning, if the source is unknown."""
        return self.types.of(data_source)

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()
