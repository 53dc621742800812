"""Runs inside the sandboxes of one grading: the solution in one process, its tests in another.

The text of this file, of ``guest_tests.py`` and of ``guest_cases.py``, with one call appended, is the whole program of
a sandboxed interpreter. ``serve_calls`` runs the solution and answers calls. ``run_tests`` runs the tests and sends
every call to the solution. ``run_program`` runs a program that reads stdin, and ``serve_cases`` runs it once per case.
The processes of solution and tests share two pipes and nothing else. Only plain data crosses the pipes, in the small
format below, so a result has lost any class, ``__eq__`` or ``__repr__`` of the solution's own before a test sees it.

The format is text, so that a remote service can carry it. It is neither pickle, which would let the solution run code
among the tests, nor JSON: both processes are started anew for every grading, and ``import json`` alone would cost half
an interpreter's start. For the same reason this file imports only modules that start with every interpreter, or nearly
so, and nothing of this package.
"""

from __future__ import annotations

import builtins
import io
import os
import resource
import sys

TYPE_CHECKING = False  # importing typing.TYPE_CHECKING takes as long as starting an interpreter
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, ModuleType
    from typing import Any, BinaryIO, NoReturn

MESSAGE_BYTES = 4 << 20
"""Longest message that either process accepts."""
MAX_DEPTH = 100
"""Deepest nesting of a value; below the recursion limit, so that a deep value fails with a clear error."""
MAX_ITERATOR_ITEMS = 1 << 20
RECURSION_LIMIT = 50_000
"""Recursion limit of LiveCodeBench's grader; recursive solutions of competition tasks rely on such a limit."""
EXIT_SYNTAX, EXIT_MEMORY = 65, 66
"""Exit codes of ``run_program`` for a syntax error and for memory; a program that forges one still fails."""


_DICT_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))

CALLBACK_PREFIX = "__rsim_"
"""Prefix of the functions that instrumented tests call to report; each run replaces it by a random one."""


class SerializationError(Exception):
    """A value is no plain data: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset or dict.

    Iterators, ranges and the views of a dictionary count as plain data, too, with plain items.
    """


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
        _write_iterable(value, chunks, depth)


def _write_iterable(value: Any, chunks: list[bytes], depth: int) -> None:
    """Writes a range, a view of a dictionary, or all that is left of an iterator.

    They arrive as what they were rather than as lists: a test that compares one with a list must fail as it does where
    tests and solution share a process, and a test that calls ``list()`` must pass.
    """
    if isinstance(value, range):
        chunks.append(b"r%x %x %x\n" % (value.start, value.stop, value.step))
        return
    for kind, tag in zip(_DICT_VIEWS, b"kvm", strict=True):
        if isinstance(value, kind):
            chunks.append(b"%c" % tag)
            _write(list(value), chunks, depth + 1)  # type: ignore[call-overload]
            return
    if not hasattr(type(value), "__next__"):
        raise SerializationError(f"a {type(value).__name__}")
    items = []
    for item in value:
        items.append(item)
        if len(items) > MAX_ITERATOR_ITEMS:  # it may be endless
            raise SerializationError(f"a {type(value).__name__} of more than {MAX_ITERATOR_ITEMS} items")
    chunks.append(b"y")
    _write(items, chunks, depth + 1)


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
    if tag in b"kvmy":
        stream.seek(1 - len(head), 1)  # the items follow the tag without a line of its own
        return _iterable(tag, _read(stream, depth + 1))
    if tag == b"r":
        return range(*(int(part, 16) for part in rest.split()))
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


def _iterable(tag: bytes, items: Any) -> Iterable:
    """Returns an iterable of the kind that a tag names.

    Raises:
        TypeError, ValueError: the items are no list, or no pairs for a view of pairs.
    """
    if not isinstance(items, list):
        raise TypeError("malformed iterable")
    if tag == b"k":
        return dict.fromkeys(items).keys()
    if tag == b"v":
        return dict(enumerate(items)).values()
    return dict(items).items() if tag == b"m" else iter(items)


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


def new_main(imports: list[str]) -> ModuleType:
    """Returns a new module ``__main__`` that has run the imports, in an interpreter prepared for programs.

    The interpreter runs without ``site``, which would define ``exit`` and ``quit``, and without /proc, to which
    /dev/stdin leads.
    """
    import _sitebuiltins

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))
    builtins.open = io.open = _open_streams_by_path(io.open)  # type: ignore[assignment]
    sys.setrecursionlimit(RECURSION_LIMIT)
    main = type(sys)("__main__")  # a module of its own: the program must not see the names of this file
    for statement in imports:
        try:
            exec(statement, main.__dict__)
        except ImportError:  # a name that this version of Python lacks
            continue
    return main


def _open_streams_by_path(real_open: Any) -> Any:
    """Returns a function like ``open`` that also opens /dev/stdin, /dev/stdout and /dev/stderr."""
    paths = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}

    def open(file: Any, *args: Any, **kwargs: Any) -> Any:
        if type(file) is str and file in paths:
            file = os.dup(paths[file])  # a copy, which the program may close
        return real_open(file, *args, **kwargs)

    return open


def serve_calls(sources: list[str], limits: dict[str, int], imports: list[str] | None = None) -> NoReturn:
    """Runs the sources one after the other in one module, then answers calls until the other process is gone."""
    calls, replies = _take_over(0, "rb"), _take_over(1, "wb")
    set_rlimits(limits)
    module = new_main(imports or [])
    module.__name__ = "solution"  # not "__main__": what a solution does when it is run as a program is no part of it
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


def run_program(source: str, limits: dict[str, int], imports: list[str] | None = None) -> None:
    """Runs a program as ``__main__``, on the process's standard streams."""
    set_rlimits(limits)
    run_main(new_main(imports or []), source)


def run_main(main: ModuleType, source: str) -> None:
    """Runs a program in the module ``main``; exits with a code of its own if it is no Python or out of memory."""
    sys.modules["__main__"] = main
    try:
        code = compile_source(source, "<solution>")
    except SyntaxError:
        os._exit(EXIT_SYNTAX)
    try:
        exec(code, main.__dict__)
    except MemoryError:
        os._exit(EXIT_MEMORY)
