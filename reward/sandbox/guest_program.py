"""Runs inside the sandboxes of one grading: the solution in one process, its tests in another.

The text of this file, with one call appended, is the whole program of a sandboxed interpreter. ``serve_calls`` runs
the solution and answers calls. ``run_tests`` runs the tests and sends every call to the solution. ``run_program`` runs
a program that reads stdin. The two processes share two pipes and nothing else. Only plain data crosses the pipes, in
the small format below, so a result has lost any class, ``__eq__`` or ``__repr__`` of the solution's own before a test
looks at it.

The format is text, so that a remote service can carry it. It is neither pickle, which would let the solution run code
among the tests, nor JSON: both processes are started anew for every grading, and ``import json`` alone would cost half
an interpreter's start. For the same reason this file imports only modules that start with every interpreter, or nearly
so, and nothing of this package.
"""

from __future__ import annotations

import builtins
import io
import math
import os
import resource
import sys

TYPE_CHECKING = False  # importing typing.TYPE_CHECKING takes as long as starting an interpreter
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, BinaryIO, NoReturn

MESSAGE_BYTES = 4 << 20
"""Longest message that either process accepts."""
MAX_DEPTH = 100
"""Deepest nesting of a value; below the recursion limit, so that a deep value fails with a clear error."""
EXIT_SYNTAX, EXIT_MEMORY = 65, 66
"""Exit codes of ``run_program`` for a syntax error and for memory; a program that forges one still fails."""


CALLBACK_PREFIX = "__rsim_"
"""Prefix of the functions that instrumented tests call to report; each run replaces it by a random one."""


class SerializationError(Exception):
    """A value is no plain data: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset or dict."""


def dump(value: object) -> bytes:
    """Returns a value as bytes.

    Subclasses become the plain type that they extend: a namedtuple becomes a tuple, a Counter a dict.

    Raises:
        SerializationError: the value is not plain data.
        ValueError: it is nested too deeply.
    """
    chunks: list[bytes] = []
    _write(value, chunks, 0)
    return b"".join(chunks)


def _write(value: Any, chunks: list[bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("a value nested too deeply")
    if value is None or value is True or value is False:
        chunks.append({None: b"N\n", True: b"T\n", False: b"F\n"}[value])
    elif isinstance(value, int):
        chunks.append(b"i%x\n" % int(value))
    elif isinstance(value, float):
        chunks.append(f"f{float.hex(value)}\n".encode())
    elif isinstance(value, complex):
        chunks.append(f"c{value.real.hex()} {value.imag.hex()}\n".encode())
    elif isinstance(value, str):
        try:
            data = value.encode()
            chunks += (b"s%d\n" % len(data), data)
        except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot encode
            chunks.append(f"u{value.encode('utf-8', 'surrogatepass').hex()}\n".encode())
    elif isinstance(value, (bytes, bytearray)):
        chunks.append(f"b{value.hex()}\n".encode())
    elif isinstance(value, dict):
        chunks.append(b"d%d\n" % len(value))
        for key, item in value.items():
            _write(key, chunks, depth + 1)
            _write(item, chunks, depth + 1)
    else:
        for kind, tag in ((list, b"l"), (tuple, b"t"), (set, b"e"), (frozenset, b"z")):
            if isinstance(value, kind):
                chunks.append(b"%c%d\n" % (tag, len(value)))
                for item in value:
                    _write(item, chunks, depth + 1)
                return
        raise SerializationError(f"a {type(value).__name__}")


def load(data: bytes) -> Any:
    """Returns the value that :func:`dump` wrote.

    Raises:
        ValueError, TypeError, KeyError: the bytes are not the output of :func:`dump`.
    """
    stream = io.BytesIO(data)
    value = _read(stream, 0)
    if stream.tell() != len(data):
        raise ValueError("bytes after the value")
    return value


def _read(stream: io.BytesIO, depth: int) -> Any:
    head = stream.readline()
    tag, rest = head[:1], head[1:-1]
    if depth > MAX_DEPTH or not head.endswith(b"\n"):
        raise ValueError("malformed value")
    if tag in b"NTF":
        return {b"N": None, b"T": True, b"F": False}[tag]
    if tag == b"i":
        return int(rest, 16)
    if tag == b"f":
        return float.fromhex(rest.decode())
    if tag == b"c":
        real, imag = rest.decode().split()
        return complex(float.fromhex(real), float.fromhex(imag))
    if tag in b"bu":
        data = bytes.fromhex(rest.decode())
        return data if tag == b"b" else data.decode("utf-8", "surrogatepass")
    size = int(rest)
    # No value has more items than the message has bytes: a forged size must not make this side loop or allocate.
    if not 0 <= size <= len(stream.getbuffer()):
        raise ValueError("malformed size")
    if tag == b"s":
        data = stream.read(size)
        if len(data) != size:
            raise ValueError("truncated value")
        return data.decode()
    if tag == b"d":
        return {_read(stream, depth + 1): _read(stream, depth + 1) for _ in range(size)}  # key, then value
    kind = {b"l": list, b"t": tuple, b"e": set, b"z": frozenset}[tag]
    return kind([_read(stream, depth + 1) for _ in range(size)])


def send(stream: BinaryIO, data: bytes) -> None:
    """Writes one dumped message, preceded by its length."""
    stream.write(b"%d\n" % len(data) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Reads one message and returns its value.

    Raises:
        EOFError: the other process has closed its pipe.
        ValueError, TypeError, KeyError: the other process wrote something that is not a message.
    """
    size = int(stream.readline(16) or -1)  # bounded: a hostile side may never send a newline
    if size == -1:
        raise EOFError
    if not 0 <= size <= MESSAGE_BYTES:
        raise ValueError("message too long")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return load(data)


def set_rlimits(limits: dict[str, int]) -> None:
    """Sets this process's resource limits by the names of RLIMIT_*, e.g. ``{"AS": bytes, "CPU": seconds}``."""
    # Soft and hard limit alike, so that the code that runs next cannot raise them again. They are set in here rather
    # than before the start, because the sandbox's own tools would not fit in them.
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def compile_source(source: str, name: str) -> CodeType:
    """Compiles source to code.

    Raises:
        SyntaxError: also for NUL characters, where Python before 3.12 raises ValueError.
    """
    try:
        # dont_inherit: this file's ``from __future__ import annotations`` must not change the meaning of the source.
        return compile(source, name, "exec", dont_inherit=True)
    except ValueError as error:
        raise SyntaxError(str(error)) from None


def _take_over(fd: int, mode: str) -> BinaryIO:
    """Returns a private stream on a standard descriptor, and points the descriptor itself to ``/dev/null``."""
    # The solution's own print() and input() would otherwise write into the messages or consume them.
    stream = os.fdopen(os.dup(fd), mode)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)
    return stream  # type: ignore[return-value]


# The solution's process


def serve_calls(sources: list[str], limits: dict[str, int]) -> NoReturn:
    """Runs the sources one after the other in one module, then answers calls until the other process is gone."""
    calls, replies = _take_over(0, "rb"), _take_over(1, "wb")
    set_rlimits(limits)
    module = type(sys)("solution")
    sys.modules["solution"] = module
    load_failure = None
    try:
        for source in sources:
            exec(compile_source(source, "<solution>"), module.__dict__)
    except BaseException as error:  # noqa: BLE001  model-written code raises anything; every call is answered with it
        load_failure = _failure_reply(error, loading=True)
    while True:
        try:
            name, args, kwargs = receive(calls)
        except EOFError:
            os._exit(0)  # sys.exit would run the solution's atexit handlers
        send(replies, load_failure or _call_reply(module, name, args, kwargs))


def _call_reply(module: Any, name: str, args: tuple, kwargs: dict) -> bytes:
    try:
        function = getattr(module, name, None)
        if function is None and hasattr(module, "Solution"):  # LeetCode's form: a method of class Solution
            function = getattr(module.Solution(), name, None)
        if function is None:
            raise NameError(f"name {name!r} is not defined")
        data = dump(("value", function(*args, **kwargs), ""))
    except BaseException as error:  # noqa: BLE001
        return _failure_reply(error)
    return data if len(data) <= MESSAGE_BYTES else dump(("output_limit", "", ""))


def _failure_reply(error: BaseException, loading: bool = False) -> bytes:
    kind = "runtime_error"
    if isinstance(error, SerializationError):
        kind = "not_literal"
    elif isinstance(error, MemoryError):
        kind = "memory"
    elif loading and isinstance(error, SyntaxError):
        kind = "syntax_error"
    try:
        message = str(error)[:1000]
        return dump((kind, type(error).__name__, message))
    except BaseException:  # noqa: BLE001  the solution's own __str__ may raise anything
        return dump((kind, "Exception", ""))


def run_program(source: str, limits: dict[str, int]) -> None:
    """Runs a program as ``__main__``, on the process's standard streams."""
    set_rlimits(limits)
    # A module of its own: the program must not see the names of this file.
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    try:
        code = compile_source(source, "<solution>")
    except SyntaxError:
        os._exit(EXIT_SYNTAX)
    try:
        exec(code, main.__dict__)
    except MemoryError:
        os._exit(EXIT_MEMORY)


# The tests' process


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
