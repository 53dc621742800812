"""Runs the tests of a solution inside a sandbox of their own, which asks the solution's process for every result.

The text of this file follows that of :mod:`verl_rsim.reward.sandbox.guest_program`, whose names it uses.
"""

from __future__ import annotations

import builtins
import math
import os

from verl_rsim.reward.sandbox.guest_program import (
    CALLBACK_PREFIX,
    SerializationError,
    _take_over,
    compile_source,
    dump,
    load,
    receive,
    send,
    set_rlimits,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn


class SolutionError(Exception):
    """The solution raised an exception that is not builtin, or returned a value that is not plain data."""


class SolutionProcessDied(BaseException):
    """The solution's process ended, or sent something that is not a message.

    It is no ``Exception``: a test that expects one (``except Exception: pass``) must not catch it and pass.
    """


class SolutionProxy:
    """Sends the tests' calls to the solution's process and returns its results as plain data."""

    speculative_calls = 0
    """Calls to write although nobody answers, for a remote service that replays the tests (see ``fusion.py``)."""

    def __init__(self, replies: BinaryIO, calls: BinaryIO):
        self._replies, self._calls = replies, calls
        self.died = False

    def function(self, name: str) -> Callable[..., object]:
        """Returns a function that calls the solution's function of that name."""

        def function(*args: object, **kwargs: object) -> object:
            return self._call(name, args, kwargs)

        function.__name__ = function.__qualname__ = name
        return function

    def _call(self, name: str, args: tuple, kwargs: dict) -> object:
        if self.died and not self.speculative_calls:
            raise SolutionProcessDied
        request = dump((name, args, kwargs))
        try:
            send(self._calls, request)
            if self.died:
                self.speculative_calls -= 1
                raise SolutionProcessDied
            kind, value, message = receive(self._replies)
        except Exception:  # noqa: BLE001  once a message was malformed, nothing that follows it can be trusted
            self.died = True
            raise SolutionProcessDied from None
        if kind == "value":
            return value
        error = _exception(kind, value, message)
        error.solution_failure = kind if kind in FAILURE_KINDS else "crash"  # type: ignore[attr-defined]
        raise error


FAILURE_KINDS = ("runtime_error", "not_literal", "memory", "syntax_error", "output_limit")


def _exception(kind: object, name: object, message: object) -> Exception:
    """Returns the exception to raise among the tests: the builtin one of that name, which a test may be waiting for.

    It is never StopIteration, which would end a loop of the test (``all(map(candidate, cases))``) as if all was well.
    """
    found = getattr(builtins, name, None) if isinstance(name, str) and kind == "runtime_error" else None
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, StopIteration):
        try:
            return found(message)
        except TypeError:  # its constructor takes more than a message, as UnicodeDecodeError's does
            pass
    return SolutionError(f"{kind}: {name}: {message}")


class ResultAccumulator:
    """Adds up the weights of the tests that passed and failed, and keeps the reason of the first failure.

    Attributes:
        passed, failed: weights of the tests so far.
        reason: reason of the first failure, "right" if there is none, "bad_test" if the tests themselves are broken.
        detail: problem of broken tests.
    """

    # Tests trust this object, so code they run by mistake must not be able to replace its methods.
    __slots__ = ("_assertions", "_reports", "detail", "failed", "passed", "reason")

    def __init__(self) -> None:
        self.passed = self.failed = 0.0
        self.reason, self.detail = "right", ""
        self._reports = 0
        self._assertions: dict[int, list[int]] = {}  # assertion number -> [times it held, times it failed]

    def record_failure(self, error: BaseException) -> None:
        """Records the reason of a failed check if it is the first."""
        if isinstance(error, SerializationError):  # the solution's are caught in its process: it is a test's argument
            self.reason, self.detail = "bad_test", f"an argument is {error}"
        elif self.reason == "right":
            default = "crash" if isinstance(error, SolutionProcessDied) else "wrong"
            self.reason = getattr(error, "solution_failure", default)

    def add(self, weight: float, share: float) -> None:
        """Adds a test of this weight, a share of which passed."""
        self.passed += weight * share
        self.failed += weight * (1 - share)

    def finish_test(self, weight: int, assertions: int) -> None:
        """Adds a test that ran to its end: the mean over its assertions that were reached, each counted once."""
        if assertions and not self._assertions:
            self.record_failure(AssertionError())  # none was reached, e.g. in a loop over an empty result
        # A mean per assertion, since one in a loop over a long result would otherwise outweigh all others.
        shares = [held / (held + failed) for held, failed in self._assertions.values()]
        self.add(weight, sum(shares) / len(shares) if shares else float(not assertions))
        self._assertions.clear()

    def abort_test(self, weight: int, error: BaseException) -> None:
        """Adds a test that an error outside its assertions has ended: all of it failed."""
        self.record_failure(error)
        self.add(max(1, weight), 0.0)
        self._assertions.clear()

    def callbacks(self) -> dict[str, Callable]:
        """Returns the functions that an instrumented assert calls, by their names without the prefix."""

        def begin() -> int:
            return self._reports

        def ok(assertion: int, reports_before: int) -> None:
            # More reports than before mean that the statement called a helper whose own asserts have been counted.
            if self._reports == reports_before:
                report(assertion, 0)

        def fail(assertion: int, error: BaseException) -> None:
            self.record_failure(error)
            report(assertion, 1)

        def report(assertion: int, column: int) -> None:
            self._reports += 1
            self._assertions.setdefault(assertion, [0, 0])[column] += 1

        return {"begin__": begin, "ok__": ok, "fail__": fail}

    def refuse_evaluation(self, *_: object, **__: object) -> NoReturn:
        """Stands in for ``eval``, ``exec`` and ``compile`` in the tests, for uses that ``parse_truth`` did not see."""
        self.reason, self.detail = "bad_test", "they evaluate text, which may be the solution's"
        raise RuntimeError(self.detail)


def nearly_equal(expected: float, given: float) -> bool:
    """Returns True if a number is within a relative 1e-6 of the expected one, or within 1e-9 where 0 is expected."""
    # No absolute tolerance beside the relative one: it would accept 0 for any small number, such as 1e-12.
    return math.isclose(expected, given, rel_tol=1e-6, abs_tol=0.0 if expected else 1e-9)


def equal_json(expected: Any, given: Any) -> bool:
    """Returns True if a result is the expected JSON value.

    A tuple counts as the list of its items and a dictionary's keys as their text, as JSON writes them. Where either
    value is a float they may differ by the tolerance of :func:`nearly_equal`.
    """
    if isinstance(expected, list):
        if not isinstance(given, (list, tuple)) or len(given) != len(expected):
            return False
        return all(equal_json(one, other) for one, other in zip(expected, given, strict=True))
    if isinstance(expected, dict):
        if not isinstance(given, dict):
            return False
        given = {str(key): item for key, item in given.items()}
        return given.keys() == expected.keys() and all(equal_json(expected[key], given[key]) for key in given)
    if {type(expected), type(given)} in ({float}, {float, int}):
        try:
            return nearly_equal(expected, given)
        except OverflowError:  # an int too large for a float
            return False
    return bool(expected == given)


def run_tests(job: bytes, limits: dict[str, int]) -> NoReturn:
    """Runs the tests of a job and writes one line to the original stderr: the report.

    The report is the hex of the dump of a tuple: the weight of what passed, the weight of what failed, the reason of
    the first failure, and the problem of the tests themselves. The tests draw the same random numbers every time.

    Args:
        job: the dump of a dictionary. ``names`` maps the name under which the tests call a function to its name in the
            solution. ``setup`` is source to run first. ``tests`` holds source, weight and number of assertions of each
            test; each is run whatever became of the one before. ``cases`` holds pairs of arguments and accepted
            results of the function that the tests call "candidate".
        limits: the process's resource limits; see :func:`set_rlimits`.
    """
    replies, calls, report = _take_over(0, "rb"), _take_over(1, "wb"), _take_over(2, "wb")
    set_rlimits(limits)
    work = load(job)
    solution, results = SolutionProxy(replies, calls), ResultAccumulator()
    functions = {name: solution.function(target) for name, target in work["names"].items()}
    try:
        _seed_random(job)
        _run_job(work, functions, results)
    except BaseException as error:  # noqa: BLE001  only the tests' setup can raise here, before it calls the solution
        results.reason, results.detail = "bad_test", f"{type(error).__name__}: {error}"
    # A test may have swallowed the death of the solution with a bare ``except:`` and passed.
    if solution.died and not results.failed:
        results.abort_test(1, SolutionProcessDied())
    line = dump((results.passed, results.failed, results.reason, ascii(results.detail)[:500])).hex()
    report.write(line.encode() + b"\n")
    report.flush()
    os._exit(0)


def _seed_random(job: bytes) -> None:
    """Seeds ``random`` and numpy from the job, where the tests use them; the solution cannot know the job."""
    for name in ("random", "numpy"):
        if name.encode() in job:
            import random

            random.seed(job)
            if name == "numpy":
                try:
                    import numpy
                except ImportError:  # tests that need it fail with an error of their own
                    continue
                numpy.random.seed(random.Random(job).getrandbits(32))


def _run_job(work: dict, functions: dict[str, Callable[..., object]], results: ResultAccumulator) -> None:
    refused = dict.fromkeys(("eval", "exec", "compile"), results.refuse_evaluation)
    # A random prefix: a name that is known in advance could be called or overwritten from the tests' namespace.
    prefix = f"__{os.urandom(16).hex()}_"
    scope: dict[str, Any] = {"__name__": "tests", "__builtins__": {**vars(builtins), **refused}}
    scope.update({prefix + name: callback for name, callback in results.callbacks().items()})
    exec(compile_source(work["setup"], "<setup>"), scope)
    scope.update(functions)  # after the setup, which may define a function of the same name as the solution
    for source, weight, assertions in work["tests"]:
        try:
            exec(compile_source(source.replace(CALLBACK_PREFIX, prefix), "<tests>"), scope)
        except BaseException as error:  # noqa: BLE001  SolutionProcessDied, SystemExit and the rest fail this test only
            results.abort_test(weight, error)
        else:
            results.finish_test(weight, assertions)
    for args, accepted in work["cases"]:
        try:
            given = functions["candidate"](*args)
            if not any(equal_json(expected, given) for expected in accepted):
                raise AssertionError
            results.add(1, 1.0)
        except BaseException as error:  # noqa: BLE001
            results.abort_test(1, error)
