"""Whether a text gives the right answer to a question with a verifiable one: mathematics, numbers, options and more.

The text's answer is found (:mod:`.extract`), compared by the rules of its type (:mod:`.answers`) and, only where that
takes a computer algebra system, handed to math-verify in worker processes that can be killed (:mod:`.worker_pool`).
It does not see the question: an answer that merely rewrites a symbolic question is right if it equals the truth.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase

from verl_rsim.reward.answers import AnswerType, fallback, judge, require_usable, resolve
from verl_rsim.reward.extract import find_answer, last_boxed
from verl_rsim.reward.verdict import TruthError, Verdict
from verl_rsim.reward.worker_pool import Ending, WorkerPool

__all__ = ["DEFAULT_TYPE", "SOURCES", "MathScorer", "default_workers", "last_boxed"]

MAX_ANSWER_CHARS = 300
"""A longer answer is no answer, unless the truth is about as long."""
MAX_TRUTH_CHARS = 5000
MEMORY_BYTES = 1 << 30
DEFAULT_TYPE = AnswerType.MATH
"""The type of answers without a data source and, with a warning, of unknown sources."""

SOURCES: Mapping[str, AnswerType] = {
    "openai/gsm8k": AnswerType.NUMBER,
    "gsm8k": AnswerType.NUMBER,
    "arithmetic": AnswerType.NUMBER,
    "chain_sum": AnswerType.NUMBER,
    "reasoning_gym/arithmetic": AnswerType.NUMBER,
    "reasoning_gym/chain_sum": AnswerType.NUMBER,
    "math": AnswerType.MATH,
    "lighteval/MATH": AnswerType.MATH,
    "DigitalLearningGmbH/MATH-lighteval": AnswerType.MATH,
    "HuggingFaceH4/MATH-500": AnswerType.MATH,
    "math_dapo*": AnswerType.MATH,
    "aime*": AnswerType.MATH,
    "numina_*": AnswerType.MATH,
    "hiyouga/geometry3k": AnswerType.MATH,
    "*/aqua_rat": AnswerType.OPTION,
    "aqua_rat": AnswerType.OPTION,
    "TIGER-Lab/MMLU-Pro": AnswerType.OPTION,
    "TIGER-Lab/TheoremQA": AnswerType.AUTO,
    "TheoremQA": AnswerType.AUTO,
    "finqa": AnswerType.FINANCIAL,
    "FinQA": AnswerType.FINANCIAL,
    "*/finqa": AnswerType.FINANCIAL,
    "*/FinQA": AnswerType.FINANCIAL,
}
"""``data_source`` (or a shell pattern of it) to the type of its answers: verl's names and our own."""


class MathScorer:
    """Scores answers; thread-safe, and bounded in time and memory whatever the text holds.

    Args:
        workers: processes for what needs algebra. They start at once and are warm before their first answer.
        timeout: seconds of wall clock for one answer there; one that takes longer is wrong.
        sources: ``data_source`` or a shell pattern of it to the type of its answers; goes before :data:`SOURCES`.
        tolerance: relative, of FLOAT, FINANCIAL and LIST answers.
        memory_bytes: address space of a worker.
    """

    def __init__(
        self,
        workers: int = 1,
        timeout: float = 3.0,
        sources: Mapping[str, AnswerType] | None = None,
        tolerance: float = 0.01,
        memory_bytes: int = MEMORY_BYTES,
    ):
        self.timeout, self.tolerance = timeout, tolerance
        self._patterns = [*(sources or {}).items(), *SOURCES.items()]
        self._types: dict[str, AnswerType] = {}
        self._pool = WorkerPool("verl_rsim.reward.math_worker", workers, timeout, memory_bytes)

    def score(self, text: str, truth: str, data_source: str | AnswerType | None = None) -> Verdict:
        """Whether a text's answer is the ground truth; blocks until one of the workers is free, if it needs one.

        Args:
            data_source: the row's source, or the type of its answer.

        Returns:
            A verdict with the reason "right", "wrong", "no_answer", "too_long", "timeout" or "crash".

        Raises:
            TruthError: the ground truth is of no use.
        """
        kind = self._check(truth, data_source)
        answer = find_answer(text, fallback(kind))
        if answer is None:
            return Verdict(0.0, False, "no_answer")
        if len(answer) > max(MAX_ANSWER_CHARS, 2 * len(truth)):
            return Verdict(0.0, True, "too_long")
        try:
            right = judge(answer, truth, kind, self.tolerance, _leave_to_a_worker)
        except _NeedsAlgebraError:
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
        self._check(truth, data_source)

    def answer_type(self, data_source: str | AnswerType | None) -> AnswerType:
        """The type of a source's answers; the default, with one warning, if the source is unknown."""
        if isinstance(data_source, AnswerType):
            return data_source
        if data_source is None:
            return DEFAULT_TYPE
        if data_source not in self._types:
            found = next((kind for pattern, kind in self._patterns if fnmatchcase(data_source, pattern)), None)
            if found is None:
                warnings.warn(
                    f"data_source {data_source!r} has no answer type: its answers are scored as "
                    f"{DEFAULT_TYPE.value!r}; name it in MathScorer(sources=...)",
                    stacklevel=3,
                )
            self._types[data_source] = found or DEFAULT_TYPE
        return self._types[data_source]

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()

    def _check(self, truth: str, data_source: str | AnswerType | None) -> AnswerType:
        if len(truth) > MAX_TRUTH_CHARS:
            raise TruthError(f"ground truth {truth[:80]!r}... has {len(truth)} characters, more than {MAX_TRUTH_CHARS}")
        kind = resolve(self.answer_type(data_source), truth)
        require_usable(kind, truth)
        return kind


class _NeedsAlgebraError(Exception):
    """The comparison takes a computer algebra system."""


def _leave_to_a_worker(given: str, wanted: str, tolerance: float) -> bool:
    raise _NeedsAlgebraError


def default_workers() -> int:
    """As many workers as help: two, or one on a single core."""
    return min(2, os.cpu_count() or 1)
