"""Counts, per agent loop worker, what its episodes are waiting for and which errors they hit.

The errors that end a job quote these counts (:mod:`verl_rsim.monitoring.watchdog.watchdog`). Without them the user
would have to search the logs of many processes for the cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MAX_ERROR_CHARACTERS = 200
"""Characters of an error message that are kept."""


@dataclass(frozen=True, slots=True)
class RolloutTracker:
    """Counts the waiting and the failed episodes of one process.

    Attributes:
        waiting: Episodes that wait now, by the component they wait for.
        errors: Errors since the batch began, by ``"{component}: {error}"``.
    """

    waiting: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


TRACKER = RolloutTracker()
"""The tracker of this process. A process runs one agent loop worker, so all its episodes share it."""


@contextmanager
def track_wait(component: str) -> Iterator[None]:
    """Counts an episode as waiting for a component, and attributes errors raised meanwhile to that component."""
    TRACKER.waiting[component] += 1
    try:
        with track_errors(component):
            yield
    finally:
        TRACKER.waiting[component] -= 1


@contextmanager
def track_errors(component: str) -> Iterator[None]:
    """Counts an error as a failure of a component. Of nested contexts only the innermost counts it."""
    try:
        yield
    except Exception as error:
        # The mark travels with the exception: contexts further out see the same object and must not count it again.
        if not hasattr(error, "rsim_component"):
            TRACKER.errors[f"{component}: {_one_line(error)}"] += 1
            error.rsim_component = component  # type: ignore[attr-defined]
        raise


def _one_line(error: Exception) -> str:
    """Returns an error's type and first line."""
    # Ray wraps an error of another process; its first line is about Ray, that of the cause is about the error.
    cause = getattr(error, "cause", None) or error
    first_line = str(cause).strip().partition("\n")[0]
    return f"{type(cause).__name__}: {first_line}"[:MAX_ERROR_CHARACTERS]


def get_tracker(_worker: object) -> RolloutTracker:
    """Returns the tracker of the process it runs in; call it inside a worker's actor with ``__ray_call__``."""
    return TRACKER
