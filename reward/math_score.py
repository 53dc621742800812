"""Whether an answer to a math question is right, by math-verify, in worker processes that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from pebble import ProcessExpired, ProcessPool

MAX_ANSWER_CHARS = 300
MEMORY_BYTES = 2 << 30
START_SECONDS = 60.0
"""What a worker may take to start, beside the time-out of its task."""


@dataclass(frozen=True, slots=True)
class MathScore:
    """The verdict on one answer.

    Attributes:
        accuracy: 1.0 if right, else 0.0.
        answered: whether an answer was found in the text.
        reason: "right", "wrong", "no_answer", "timeout" or "crash".
    """

    accuracy: float
    answered: bool
    reason: str


def last_boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` with balanced braces, None if there is none."""
    start = text.rfind("\\boxed{")
    while start != -1:
        depth, begin = 0, start + len("\\boxed")
        for position in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[begin + 1 : position].strip()
        start = text.rfind("\\boxed{", 0, start)
    return None


_HASHES = re.compile(r"####\s*(.+)")
_ANSWER_IS = re.compile(r"answer\s*(?:is|:|=)\s*:?\s*([^\n]+)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def extract_answer(text: str) -> str | None:
    """The answer a text states: the last box, else the last ``####``, else the last "answer is", else the last number.

    Returns:
        At most 300 characters, or None.
    """
    if (boxed := last_boxed(text)) is not None:
        return boxed[:MAX_ANSWER_CHARS] or None
    for pattern in (_HASHES, _ANSWER_IS):
        if found := pattern.findall(text):
            answer = found[-1].strip().rstrip(".").strip()
            numbers = _NUMBER.findall(answer)
            return (numbers[0] if numbers else answer)[:MAX_ANSWER_CHARS] or None
    numbers = _NUMBER.findall(text)
    return numbers[-1][:MAX_ANSWER_CHARS] if numbers else None


def _plain(text: str) -> str:
    return re.sub(r"[\s$,]|\\[,;!]|\\text\{[^}]*\}", "", text).rstrip(".").lower()


def _as_number(text: str) -> float | None:
    try:
        return float(_plain(text))
    except ValueError:
        return None


def quick_verdict(answer: str, truth: str) -> bool | None:
    """Right or wrong where that needs no parser: equal strings, two numbers; None where it does."""
    if _plain(answer) == _plain(truth):
        return True
    given, wanted = _as_number(answer), _as_number(truth)
    if wanted is not None:
        if given is not None:
            return given == wanted
        if re.search(r"[=+*^]|\\times|\\cdot|\d\s*-\s*\d|%", answer):
            return False  # an expression left unevaluated, or a percentage, is no number
    return None


def _limit_worker() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _verify(answer: str, truth: str) -> bool:
    """Runs in a worker: math-verify's own time-outs are off, since the pool kills."""
    from math_verify import parse, verify

    gold = parse(f"${truth}$", parsing_timeout=None)
    given = parse(f"${answer}$", parsing_timeout=None)
    return bool(verify(gold, given, timeout_seconds=None))


class MathScorer:
    """Scores answers in a pool of worker processes.

    Args:
        workers: processes.
        timeout: seconds for one answer; a worker that takes longer is killed, its answer counts as wrong.
    """

    def __init__(self, workers: int = 1, timeout: float = 3.0):
        self.timeout = timeout
        # Spawned, not forked: a fork of a large multi-threaded process can deadlock and starts above the memory limit.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPool(max_workers=workers, max_tasks=2000, initializer=_limit_worker, context=context)

    def score(self, text: str, truth: str) -> MathScore:
        """Score a text against the ground truth; blocks for at most the time-out and a worker's start."""
        answer = extract_answer(text)
        if answer is None:
            return MathScore(0.0, False, "no_answer")
        verdict = quick_verdict(answer, truth)
        if verdict is None:
            future = self._pool.schedule(_verify, args=(answer, truth), timeout=self.timeout)
            try:
                verdict = future.result(timeout=self.timeout + START_SECONDS)
            except FutureTimeout:
                return MathScore(0.0, True, "timeout")
            except (ProcessExpired, MemoryError, RecursionError):
                return MathScore(0.0, True, "crash")
            except Exception:  # noqa: BLE001  whatever the parser raises on adversarial text is a wrong answer
                return MathScore(0.0, True, "crash")
        return MathScore(float(verdict), True, "right" if verdict else "wrong")

    def close(self) -> None:
        """Kill the workers."""
        self._pool.stop()
        self._pool.join()


def default_workers() -> int:
    """As many workers as help: two, or one on a single core."""
    return min(2, os.cpu_count() or 1)
