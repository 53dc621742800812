"""Grades programs by their tests, which run in another process than the solution.

Function tests (HumanEval, MBPP, calls) are split between two sandboxes, one for the solution and one for its tests; see
:mod:`verl_rsim.reward.sandbox.guest_program`. If both ran in one process, a solution could patch ``assert``, exit with
0 or forge a report. Split, whatever it does to its own process changes nothing but its answers, and to pass it has to
know them. A program that reads stdin runs once per case, each time in a new process of a sandbox that never holds the
expected output.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from verl_rsim.reward.code_grading.extraction import extract_code
from verl_rsim.reward.code_grading.prelude import prelude_of
from verl_rsim.reward.code_grading.program_tests import FunctionTests, StdioTests, parse_truth
from verl_rsim.reward.sandbox.base import ProgramResult, Sandbox, SandboxError
from verl_rsim.reward.sandbox.guest_program import EXIT_MEMORY, EXIT_SYNTAX, dump, load
from verl_rsim.reward.sandbox.guest_tests import nearly_equal
from verl_rsim.reward.verdict import TruthError, Verdict


def same_output(expected: str, given: str) -> bool:
    """Returns True if a program printed what it should.

    Outputs are compared line by line, without trailing white space and trailing empty lines. A line that differs is
    still right if its words are equal. A number that is expected with a point or an exponent may be off by a relative
    1e-6, or by 1e-9 where 0 is expected.
    """
    expected_lines, given_lines = expected.rstrip().split("\n"), given.rstrip().split("\n")
    return len(expected_lines) == len(given_lines) and all(map(_same_line, expected_lines, given_lines))


def _same_line(expected: str, given: str) -> bool:
    if expected.rstrip() == given.rstrip():
        return True
    expected_words, given_words = expected.split(), given.split()
    return len(expected_words) == len(given_words) and all(map(_same_word, expected_words, given_words))


_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def _same_word(expected: str, given: str) -> bool:
    if expected == given:
        return True
    # Only where a float is expected: an integer must be exact, and "nan" or "inf" is never a number here.
    if not _DECIMAL.fullmatch(expected) or not _NUMBER.fullmatch(given):
        return False
    return nearly_equal(float(expected), float(given))


@dataclass(frozen=True, slots=True)
class ScorerStats:
    """Numbers of gradings that run, wait for a free slot, and are finished."""

    running: int
    waiting: int
    finished: int


class CodeScorer:
    """Scores answers to coding tasks.

    Grading happens in the caller's thread. At most ``workers`` gradings run at once and further callers wait, so that
    the producers of answers are held back to the pace of the sandbox.

    Args:
        sandbox: sandbox in which code runs.
        workers: number of gradings at once.
    """

    def __init__(self, sandbox: Sandbox, workers: int = 2):
        self._sandbox = sandbox
        self._slots = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._running = self._waiting = self._finished = 0
        self._closed = False

    def score(self, text: str, truth: str) -> Verdict:
        """Grades an answer. Once it has a slot this takes at most the limit of wall time and a second.

        Returns:
            ``accuracy`` is 1.0 if every test passed; ``parts["passed"]`` is the fraction that did. ``reason`` is
            "right", "no_answer", or the reason of the first failed test: "wrong", "syntax_error", "runtime_error",
            "timeout", "memory", "crash", "output_limit" or "not_literal" (a result that is no plain data).

        Raises:
            TruthError: the tests cannot be used.
            SandboxError: the sandbox failed, which says nothing about the answer.
        """
        tests = parse_truth(truth)
        if isinstance(tests, StdioTests):
            code = extract_code(text, reads_stdin=True)
        else:
            code = extract_code(text, tuple(tests.names.values()))
        if code is None:
            return Verdict(0.0, False, "no_answer", {"passed": 0.0})
        with self._slot():
            if isinstance(tests, StdioTests):
                return self._grade_program(code, tests)
            return self._grade_functions(code, tests)

    def _grade_functions(self, code: str, tests: FunctionTests) -> Verdict:
        rlimits = self._sandbox.rlimits()
        solution = f"serve_calls({_solution_sources(code, tests)!a}, {rlimits}, {prelude_of(code)!a})"
        sources = [(test.source, test.weight, test.assertions) for test in tests.tests]
        job = {"names": dict(tests.names), "setup": tests.setup, "tests": sources, "cases": tests.cases}
        result = self._sandbox.run_connected(
            f"run_tests({dump(job)!r}, {rlimits})", solution, self._sandbox.limits.wall_seconds
        )
        # The newline is the last byte written: without it the tests were killed in the middle of the report, or before.
        if not result.report.endswith(b"\n"):
            return Verdict(0.0, True, "timeout" if result.timed_out else "crash", {"passed": 0.0})
        try:
            passed, failed, reason, detail = load(bytes.fromhex(result.report.decode()))
        except (ValueError, TypeError, KeyError) as error:
            raise SandboxError(f"the tests sent no report but {result.report[:80]!r}") from error
        if reason == "bad_test":
            raise TruthError(f"ground truth has tests that do not run ({detail}): correct them")
        # To the tests a solution that was killed at its time limit looks like one that crashed.
        if result.timed_out and reason in ("right", "crash"):
            reason = "timeout"
        return Verdict(float(reason == "right"), True, reason, {"passed": passed / (passed + failed)})

    def _grade_program(self, code: str, tests: StdioTests) -> Verdict:
        limits = self._sandbox.limits
        reasons: list[str] = []
        inputs = [case.stdin for case in tests.cases]
        with closing(self._sandbox.run_cases(code, prelude_of(code), inputs)) as results:
            for case, done in zip(tests.cases, results, strict=False):
                # Not started in the full time: the machine's fault. Later the program has used the time up.
                if done.code is None and not reasons:
                    raise SandboxError(f"the sandbox took more than {limits.wall_seconds:.1f} s to start")
                reasons.append(_case_reason(done, case.expected))
                if reasons[-1] in ("timeout", "syntax_error"):  # the same would happen in all further cases
                    break
        passed = reasons.count("right") / len(tests.cases)
        reason = next((reason for reason in reasons if reason != "right"), "right")
        return Verdict(float(passed == 1.0), True, reason, {"passed": passed})

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Waits for a free slot, holds it during the block, and keeps the counters."""
        with self._lock:
            self._waiting += 1
        try:
            self._slots.acquire()
        finally:
            with self._lock:
                self._waiting -= 1
        try:
            if self._closed:  # checked after the wait, in which the scorer may have been closed
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
            self._slots.release()

    def stats(self) -> ScorerStats:
        """Returns the current counters."""
        with self._lock:
            return ScorerStats(self._running, self._waiting, self._finished)

    def close(self) -> None:
        """Refuses the callers that still wait; gradings that run end within their limits."""
        self._closed = True


def _solution_sources(code: str, tests: FunctionTests) -> list[str]:
    """Returns the sources that the solution's process runs, in order."""
    # An answer that starts indented continues the function whose head ends the prompt.
    if tests.prompt and code.lstrip("\r\n")[:1] in (" ", "\t"):
        return [f"{tests.prompt}\n{code}"]
    return [tests.prompt, code] if tests.prompt else [code]


# A SIGKILL that was not ours is the kernel's at the limit of CPU time: no SIGXCPU precedes it, since the soft limit is
# the hard one.
_EXIT_REASONS = {EXIT_SYNTAX: "syntax_error", EXIT_MEMORY: "memory", 128 + signal.SIGKILL: "timeout"}


def _case_reason(done: ProgramResult, expected: str) -> str:
    """Returns the reason why a case passed or failed."""
    if done.timed_out:
        return "timeout"
    if done.overflowed:
        return "output_limit"
    if done.code:
        return _EXIT_REASONS.get(done.code, "crash" if done.code > 128 else "runtime_error")
    return "right" if same_output(expected, done.output.decode("utf-8", "replace")) else "wrong"
