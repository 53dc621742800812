"""Whether a program passes its tests, which run where it cannot touch them.

Function tests (HumanEval, MBPP, calls) are split between two sandboxes (:mod:`verl_rsim.reward.sandbox.guest_program`).
A program that reads stdin runs once a case, each time in a new sandbox that never holds the expected output. What the
solution does to its own process changes nothing but its answers; to pass it has to know them.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from verl_rsim.reward.code_grading.program_tests import FunctionTests, StdioTests, parse_truth
from verl_rsim.reward.sandbox.base import ProgramResult, Sandbox, SandboxError
from verl_rsim.reward.sandbox.guest_program import EXIT_MEMORY, EXIT_SYNTAX, close, dump, load
from verl_rsim.reward.verdict import TruthError, Verdict

MAX_CODE_CHARS = 1 << 18
_FENCE = re.compile(r"(?:^[ \t]*```[ \t]*|```(?=py))(\w*)[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(
    r"^[ \t]*(?:(?:async )?def \w|class \w|import \w|from [\w.]+ import |return\b|print\(|\w+ = )", re.MULTILINE
)


def extract_code(text: str) -> str | None:
    """The last fenced block that says it is Python, else the last that says nothing, else a text that looks like code.

    A block that is never closed, as when the answer was cut short, counts up to its end.
    """
    blocks = [(language.lower(), body) for language, body in _FENCE.findall(text)]
    for languages in (("python", "python3", "py"), ("",)):
        if found := [body for language, body in blocks if language in languages]:
            return _usable(found[-1])
    return _usable(text) if not blocks and _CODE.search(text) else None


def _usable(code: str) -> str | None:
    return code if code.strip() and len(code) <= MAX_CODE_CHARS else None


def same_output(expected: str, given: str) -> bool:
    """Whether a program printed what it should.

    Line by line, without trailing white space and trailing empty lines; a line that differs is still right if its
    words are equal, where a number written with a point or an exponent may be off by 1e-6 relative, or 1e-9 from 0.
    """
    wanted, found = expected.rstrip().split("\n"), given.rstrip().split("\n")
    return len(wanted) == len(found) and all(map(_same_line, wanted, found))


def _same_line(expected: str, given: str) -> bool:
    if expected.rstrip() == given.rstrip():
        return True
    wanted, found = expected.split(), given.split()
    return len(wanted) == len(found) and all(map(_same_word, wanted, found))


_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def _same_word(expected: str, given: str) -> bool:
    if expected == given:
        return True
    if not _DECIMAL.fullmatch(expected) or not _NUMBER.fullmatch(given):
        return False
    return close(float(expected), float(given))


@dataclass(frozen=True, slots=True)
class ScorerStats:
    """How many gradings run, wait for their turn, and are done."""

    running: int
    waiting: int
    finished: int


class CodeScorer:
    """Scores answers to coding tasks.

    A caller works itself; no more than ``workers`` do at once and the others wait, so that whoever produces answers
    is held back to the pace of the sandbox.

    Args:
        sandbox: where code runs.
        workers: gradings at once.
    """

    def __init__(self, sandbox: Sandbox, workers: int = 2):
        self._sandbox = sandbox
        self._turns = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._running = self._waiting = self._finished = 0
        self._closed = False

    def score(self, text: str, truth: str) -> Verdict:
        """Grade an answer; once it is its turn, within the limit of wall time and a second.

        Returns:
            ``accuracy`` 1.0 if every test passed, with ``parts["passed"]`` the fraction that did. Beside "right",
            "wrong" and "no_answer" the reason is "syntax_error", "runtime_error", "timeout", "memory", "crash",
            "output_limit" or "not_literal" (a result that is no plain data), as it befell the first failed test.

        Raises:
            TruthError: the tests cannot be used.
            SandboxError: the sandbox failed, which says nothing of the answer.
        """
        tests = parse_truth(truth)
        code = extract_code(text)
        if code is None:
            return Verdict(0.0, False, "no_answer", {"passed": 0.0})
        with self._turn():
            if isinstance(tests, StdioTests):
                return self._play(code, tests)
            return self._converse(code, tests)

    def _converse(self, code: str, tests: FunctionTests) -> Verdict:
        limits = self._sandbox.limits
        solution = f"serve({_sources(code, tests)!a}, {self._sandbox.inside()})"
        units = [(unit.source, unit.weight, unit.sites) for unit in tests.units]
        work = {"names": dict(tests.names), "setup": tests.setup, "units": units, "cases": tests.cases}
        driver = f"drive({dump(work)!r}, {self._sandbox.inside()})"
        heard = self._sandbox.converse(driver, solution, limits.wall_seconds)
        if not heard.report.endswith(b"\n"):
            return Verdict(0.0, True, "timeout" if heard.timed_out else "crash", {"passed": 0.0})
        try:
            passed, failed, reason, detail = load(bytes.fromhex(heard.report.decode()))
        except (ValueError, TypeError, KeyError) as error:
            raise SandboxError(f"the tests sent no report but {heard.report[:80]!r}") from error
        if reason == "bad_test":
            raise TruthError(f"ground truth has tests that do not run ({detail}): mend them")
        if heard.timed_out and reason in ("right", "crash"):
            reason = "timeout"
        return Verdict(float(reason == "right"), True, reason, {"passed": passed / (passed + failed)})

    def _play(self, code: str, tests: StdioTests) -> Verdict:
        limits, program = self._sandbox.limits, f"play({code!a}, {self._sandbox.inside()})"
        deadline = time.monotonic() + limits.wall_seconds
        reasons: list[str] = []
        for case in tests.cases:
            done = self._sandbox.run(program, case.stdin, max(0.0, deadline - time.monotonic()))
            if done.code is None and not reasons:  # later on it is the program that used the time up
                raise SandboxError(f"the sandbox took more than {limits.wall_seconds:.1f} s to start")
            reasons.append(_ending(done, case.expected))
            if reasons[-1] in ("timeout", "syntax_error"):
                break
        passed = reasons.count("right") / len(tests.cases)
        reason = next((reason for reason in reasons if reason != "right"), "right")
        return Verdict(float(passed == 1.0), True, reason, {"passed": passed})

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
        try:
            self._turns.acquire()
        finally:
            with self._lock:
                self._waiting -= 1
        try:
            if self._closed:
                raise SandboxError("the scorer is closed")
            with self._lock:
                self._running += 1
            try:
                yield
            finally:
                with self._lock:
                    self._running -= 1
                    self._finished += 1
        finally:
            self._turns.release()

    def stats(self) -> ScorerStats:
        """The counters of this moment."""
        with self._lock:
            return ScorerStats(self._running, self._waiting, self._finished)

    def close(self) -> None:
        """Refuse what still waits; what runs ends within its limits."""
        self._closed = True


def _sources(code: str, tests: FunctionTests) -> list[str]:
    """What the solution's side runs, in order: an answer that starts indented goes on where the prompt stopped."""
    if tests.prompt and code.lstrip("\r\n")[:1] in (" ", "\t"):
        return [f"{tests.prompt}\n{code}"]
    return [tests.prompt, code] if tests.prompt else [code]


_CODES = {EXIT_SYNTAX: "syntax_error", EXIT_MEMORY: "memory", 128 + signal.SIGKILL: "timeout"}


def _ending(done: ProgramResult, expected: str) -> str:
    """Why a case passed or not; SIGKILL that was not ours is the limit of CPU time."""
    if done.timed_out or done.overflowed:
        return "timeout" if done.timed_out else "output_limit"
    if done.code:
        return _CODES.get(done.code, "crash" if done.code > 128 else "runtime_error")
    return "right" if same_output(expected, done.output.decode("utf-8", "replace")) else "wrong"
