"""What runs inside the sandboxes of one grading: the solution on one side, the tests on the other.

The text of this file, with one call appended, is the whole program of a sandboxed interpreter. ``serve`` runs the
solution and answers calls; ``drive`` runs the tests, asking for every call; ``play`` runs a program that reads stdin.
The two sides share two pipes and nothing else. What crosses them is plain data in the small format below, so a result
has lost whatever class, ``__eq__`` or ``__repr__`` the solution gave it before a test looks at it.

The format is text, so that a remote service can carry it, and neither pickle nor JSON: each side is started anew for
every grading, and ``import json`` alone would cost half an interpreter's start. For the same reason this file imports
only what starts with every interpreter or nearly so, and nothing of this package.
"""

from __future__ import annotations

import builtins
import io
import math
import os
import resource
import sys

TYPE_CHECKING = False  # typing's own costs as much as an interpreter
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, BinaryIO, NoReturn

MESSAGE_BYTES = 4 << 20
"""The longest message either side accepts."""
MAX_DEPTH = 100
EXIT_SYNTAX, EXIT_MEMORY = 65, 66
"""How ``play`` ends for two reasons worth telling apart; a program can forge them, and gains nothing by it."""


HIDDEN = "__rsim_"
"""How the names begin under which rewritten tests report; each run puts a random beginning of its own in its place."""


class NotLiteral(Exception):
    """A value that is not None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset or dict."""


def dump(value: object) -> bytes:
    """A value as bytes. Subclasses become the plain type they extend: a namedtuple a tuple, a Counter a dict."""
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
        except UnicodeEncodeError:  # half of a surrogate pair
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
        raise NotLiteral(f"a {type(value).__name__}")


def load(data: bytes) -> Any:
    """The value that :func:`dump` wrote.

    Raises:
        ValueError, TypeError, KeyError: these bytes are not one.
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
    if not 0 <= size <= len(stream.getbuffer()):
        raise ValueError("malformed size")
    if tag == b"s":
        data = stream.read(size)
        if len(data) != size:
            raise ValueError("truncated value")
        return data.decode()
    if tag == b"d":
        return {_read(stream, depth + 1): _read(stream, depth + 1) for _ in range(size)}
    kind = {b"l": list, b"t": tuple, b"e": set, b"z": frozenset}[tag]
    return kind([_read(stream, depth + 1) for _ in range(size)])


def send(stream: BinaryIO, data: bytes) -> None:
    """Write one dumped message."""
    stream.write(b"%d\n" % len(data) + data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
        ValueError, TypeError, KeyError: it wrote something that is no message.
    """
    size = int(stream.readline(16) or -1)
    if size == -1:
        raise EOFError
    if not 0 <= size <= MESSAGE_BYTES:
        raise ValueError("message too long")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return load(data)


def confine(limits: dict[str, int]) -> None:
    """Set this process's own limits, e.g. ``{"AS": bytes, "CPU": seconds}``; they cannot be raised again."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def compiled(source: str, name: str) -> CodeType:
    """Source as code, under none of this file's ``__future__``.

    Raises:
        SyntaxError: also for NUL characters, as from Python 3.12 on.
    """
    try:
        return compile(source, name, "exec", dont_inherit=True)
    except ValueError as error:
        raise SyntaxError(str(error)) from None


def _take(fd: int, mode: str) -> BinaryIO:
    """A private stream on a standard descriptor, which from now on leads nowhere."""
    stream = os.fdopen(os.dup(fd), mode)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)
    return stream  # type: ignore[return-value]


# The side of the solution


def serve(sources: list[str], limits: dict[str, int]) -> NoReturn:
    """Run the sources one after the other in one module, then answer calls until the other side is gone."""
    calls, replies = _take(0, "rb"), _take(1, "wb")
    confine(limits)
    module = type(sys)("solution")
    sys.modules["solution"] = module
    broken = None
    try:
        for source in sources:
            exec(compiled(source, "<solution>"), module.__dict__)
    except BaseException as error:  # noqa: BLE001  model-written code raises anything, and every call will say so
        broken = _failure(error, loading=True)
    while True:
        try:
            name, args, kwargs = receive(calls)
        except EOFError:
            os._exit(0)
        send(replies, broken or _answer(module, name, args, kwargs))


def _answer(module: Any, name: str, args: tuple, kwargs: dict) -> bytes:
    try:
        function = getattr(module, name, None)
        if function is None and hasattr(module, "Solution"):
            function = getattr(module.Solution(), name, None)
        if function is None:
            raise NameError(f"name {name!r} is not defined")
        data = dump(("value", function(*args, **kwargs), ""))
    except BaseException as error:  # noqa: BLE001
        return _failure(error)
    return data if len(data) <= MESSAGE_BYTES else dump(("output_limit", "", ""))


def _failure(error: BaseException, loading: bool = False) -> bytes:
    kind = "runtime_error"
    if isinstance(error, NotLiteral):
        kind = "not_literal"
    elif isinstance(error, MemoryError):
        kind = "memory"
    elif loading and isinstance(error, SyntaxError):
        kind = "syntax_error"
    try:
        message = str(error)[:1000]
        return dump((kind, type(error).__name__, message))
    except BaseException:  # noqa: BLE001  a message that cannot be had is no message
        return dump((kind, "Exception", ""))


def play(source: str, limits: dict[str, int]) -> None:
    """Run a program as ``__main__``, on the standard streams as they are."""
    confine(limits)
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    try:
        code = compiled(source, "<solution>")
    except SyntaxError:
        os._exit(EXIT_SYNTAX)
    try:
        exec(code, main.__dict__)
    except MemoryError:
        os._exit(EXIT_MEMORY)


# The side of the tests


class SolutionError(Exception):
    """The solution raised something that is no builtin exception, or returned something that is no literal."""


class SolutionGone(BaseException):
    """The solution's process died, or sent rubbish. No ``Exception``: a test that expects one must not catch it."""


class Solution:
    """The solution as the tests see it: calls by name, answered with plain data."""

    ahead = 0
    """How many calls to write once nobody answers, for a service that wants to know what comes next."""

    def __init__(self, replies: BinaryIO, calls: BinaryIO):
        self._replies, self._calls = replies, calls
        self.gone = False
        self.failures: dict[int, str] = {}

    def function(self, name: str) -> Any:
        """The solution's function of that name."""

        def function(*args: object, **kwargs: object) -> object:
            return self._ask(name, args, kwargs)

        function.__name__ = function.__qualname__ = name
        return function

    def _ask(self, name: str, args: tuple, kwargs: dict) -> object:
        if self.gone and not self.ahead:
            raise SolutionGone
        request = dump((name, args, kwargs))
        try:
            send(self._calls, request)
            if self.gone:
                self.ahead -= 1
                raise SolutionGone
            kind, value, message = receive(self._replies)
        except Exception:  # noqa: BLE001  whatever it did to end up here, it is not heard again
            self.gone = True
            raise SolutionGone from None
        if kind == "value":
            return value
        error = _exception(kind, value, message)
        error.solution_failure = kind if kind in FAILURES else "crash"  # type: ignore[attr-defined]
        raise error


FAILURES = ("runtime_error", "not_literal", "memory", "syntax_error", "output_limit")


def _exception(kind: object, name: object, message: object) -> Exception:
    """The exception that a test may be waiting for: a builtin one of that name.

    Never StopIteration, which would end a loop of the test (``all(map(candidate, cases))``) as if all was well.
    """
    found = getattr(builtins, name, None) if isinstance(name, str) and kind == "runtime_error" else None
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, StopIteration):
        try:
            return found(message)
        except TypeError:  # one that takes more than a message
            pass
    return SolutionError(f"{kind}: {name}: {message}")


class Ledger:
    """What the units of the tests came to, and why the first failure was one. Slots: nothing of it can be replaced."""

    __slots__ = ("_count", "_sites", "detail", "failed", "passed", "reason")

    def __init__(self) -> None:
        self.passed = self.failed = 0.0
        self.reason, self.detail = "right", ""
        self._count, self._sites = 0, {}  # type: tuple[int, dict[int, list[int]]]

    def blame(self, error: BaseException) -> None:
        """Remember why a check failed, if it was the first."""
        if isinstance(error, NotLiteral):  # only the tests' own arguments end up here
            self.reason, self.detail = "bad_test", f"an argument is {error}"
        elif self.reason == "right":
            gone = "crash" if isinstance(error, SolutionGone) else "wrong"
            self.reason = getattr(error, "solution_failure", gone)

    def weigh(self, weight: float, share: float) -> None:
        """Book a unit of which this share passed."""
        self.passed += weight * share
        self.failed += weight * (1 - share)

    def end(self, weight: int, sites: int) -> None:
        """Book the unit that came to its end: the mean of what its sites came to, each counted once."""
        if sites and not self._sites:
            self.blame(AssertionError())  # its asserts were not come to
        shares = [held / (held + failed) for held, failed in self._sites.values()]
        self.weigh(weight, sum(shares) / len(shares) if shares else float(not sites))
        self._sites.clear()

    def break_off(self, weight: int, error: BaseException) -> None:
        """Book the unit that an error outside a site has ended: all of it failed."""
        self.blame(error)
        self.weigh(max(1, weight), 0.0)
        self._sites.clear()

    def tools(self) -> dict[str, Any]:
        """The functions that a rewritten assert calls, by the end of their names."""

        def begin() -> int:
            return self._count

        def ok(site: int, begun: int) -> None:
            if self._count == begun:  # else it is a helper whose own sites were counted
                book(site, 0)

        def fail(site: int, error: BaseException) -> None:
            self.blame(error)
            book(site, 1)

        def book(site: int, column: int) -> None:
            self._count += 1
            self._sites.setdefault(site, [0, 0])[column] += 1

        return {"begin__": begin, "ok__": ok, "fail__": fail}

    def refuse(self, *_: object, **__: object) -> NoReturn:
        """Stands in the tests for what evaluates text: ``parse_truth`` refuses such tests where it sees it."""
        self.reason, self.detail = "bad_test", "they evaluate text, which may be the solution's"
        raise RuntimeError(self.detail)


def close(expected: float, given: float) -> bool:
    """Whether a number is the expected one to 1e-6 relative, or to 1e-9 where 0 is expected."""
    return math.isclose(expected, given, rel_tol=1e-6, abs_tol=0.0 if expected else 1e-9)


def same(expected: Any, given: Any) -> bool:
    """Whether a result is the expected JSON value.

    A tuple counts as the list of its items, a dictionary's keys as their text (as JSON would write them), and where
    either is a float both may differ as :func:`close` says.
    """
    if isinstance(expected, list):
        if not isinstance(given, (list, tuple)) or len(given) != len(expected):
            return False
        return all(same(one, other) for one, other in zip(expected, given, strict=True))
    if isinstance(expected, dict):
        given = {str(key): item for key, item in given.items()} if isinstance(given, dict) else None
        return given is not None and given.keys() == expected.keys() and all(same(expected[k], given[k]) for k in given)
    if {type(expected), type(given)} in ({float}, {float, int}):
        try:
            return close(expected, given)
        except OverflowError:  # an int beyond any float
            return False
    return bool(expected == given)


def drive(job: bytes, limits: dict[str, int]) -> NoReturn:
    """Run the tests of a job and report, in one line on what was stderr, the hex of the dump of a tuple:
    the weight of what passed, of what failed, why the first one did, and what is wrong with the tests themselves.

    The job is the dump of a dictionary. names: what the tests call a function, to its name in the solution; setup:
    source to run before; units: source, weight and number of sites, each run after the other whatever the one before
    did; cases: pairs of arguments and accepted results of the function that the tests call "candidate". The tests draw
    the same random numbers every time.
    """
    replies, calls, report = _take(0, "rb"), _take(1, "wb"), _take(2, "wb")
    confine(limits)
    work = load(job)
    solution, ledger = Solution(replies, calls), Ledger()
    functions = {name: solution.function(target) for name, target in work["names"].items()}
    try:
        _seed(job)
        _check(work, functions, ledger)
    except BaseException as error:  # noqa: BLE001  the tests' setup has seen nothing of the solution
        ledger.reason, ledger.detail = "bad_test", f"{type(error).__name__}: {error}"
    if solution.gone and not ledger.failed:
        ledger.break_off(1, SolutionGone())
    line = dump((ledger.passed, ledger.failed, ledger.reason, ascii(ledger.detail)[:500])).hex()
    report.write(line.encode() + b"\n")
    report.flush()
    os._exit(0)


def _seed(job: bytes) -> None:
    """Seed what the tests draw from, if they do; a solution cannot know the job."""
    for name in ("random", "numpy"):
        if name.encode() in job:
            import random

            random.seed(job)
            if name == "numpy":
                try:
                    import numpy
                except ImportError:  # the tests that need it will say so
                    continue
                numpy.random.seed(random.Random(job).getrandbits(32))


def _check(work: dict, functions: dict[str, Any], ledger: Ledger) -> None:
    refused = dict.fromkeys(("eval", "exec", "compile"), ledger.refuse)
    hidden = f"__{os.urandom(16).hex()}_"
    scope = {"__name__": "tests", "__builtins__": {**vars(builtins), **refused}}
    scope.update({hidden + name: tool for name, tool in ledger.tools().items()})
    exec(compiled(work["setup"], "<setup>"), scope)
    scope.update(functions)
    for source, weight, sites in work["units"]:
        try:
            exec(compiled(source.replace(HIDDEN, hidden), "<tests>"), scope)
        except BaseException as error:  # noqa: BLE001
            ledger.break_off(weight, error)
        else:
            ledger.end(weight, sites)
    for args, accepted in work["cases"]:
        try:
            given = functions["candidate"](*args)
            if not any(same(expected, given) for expected in accepted):
                raise AssertionError
            ledger.weigh(1, 1.0)
        except BaseException as error:  # noqa: BLE001
            ledger.break_off(1, error)
