"""Parses Python source, one thread at a time."""

from __future__ import annotations

import ast
import threading

_PARSE_LOCK = threading.RLock()  # reentrant: a garbage collection during a parse may run code that parses


def parse_source(source: str) -> ast.Module:
    """Parses source like ``ast.parse``; safe to call from several threads.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: the source is not Python.
    """
    # CPython 3.11 counts the depth of the trees that it builds in one counter for all threads. If garbage is collected
    # while a tree is built, and a finalizer lets another thread run (Ray's do), the depths of two threads are mixed
    # and one of them fails: "SystemError: AST constructor recursion depth mismatch".
    with _PARSE_LOCK:
        return ast.parse(source)
