"""Reading Python source, one thread at a time."""

from __future__ import annotations

import ast
import threading

_READING = threading.RLock()


def parse_source(source: str) -> ast.Module:
    """As ``ast.parse``; safe to call from several threads.

    CPython 3.11 counts the depth of the trees that it builds once for all threads. Where garbage is collected while
    one is built, and an object of it lets another thread run (Ray's do), both threads' depths are mixed, and one of
    them ends in ``SystemError: AST constructor recursion depth mismatch``.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: it is not Python.
    """
    with _READING:
        return ast.parse(source)
