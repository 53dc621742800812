"""Makes imports cheaper by hiding what they create from the garbage collector."""

from __future__ import annotations

import gc
import sys

QUIET_COLLECTIONS = 10
"""Full collections in a row without a new module after which the start of the process is over."""


class _ImportFreeze:
    """Freezes the collector's objects after each full collection before which new modules have appeared."""

    def __init__(self) -> None:
        self.modules = 0
        self.quiet = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase != "stop" or info["generation"] < 2:
            return  # only a full collection leaves no garbage that a freeze would keep for ever
        if len(sys.modules) != self.modules:
            self.modules, self.quiet = len(sys.modules), 0
            gc.freeze()
            return
        self.quiet += 1
        if self.quiet >= QUIET_COLLECTIONS:
            gc.callbacks.remove(self)


def freeze_imports() -> None:
    """Takes modules out of the garbage collector's sight while they are imported, until the process has started.

    torch, vLLM and verl create a million objects that live as long as the process. Python's collector visits all of
    them again and again while they are imported, and in each full collection afterwards. It goes on to collect what is
    created later. Freezing ends after :data:`QUIET_COLLECTIONS` without a new module: what is frozen, and is in use
    at that moment, is not collected later. Ray calls this function first in every process of a job
    (``worker_process_setup_hook`` in ``rsim_base.yaml``).
    """
    if not any(isinstance(callback, _ImportFreeze) for callback in gc.callbacks):
        gc.callbacks.append(_ImportFreeze())
