"""What an agent loop's worker saw of its episodes: whom they wait for, and what failed them.

For the errors that end a job (:mod:`verl_rsim.monitoring.watchdog.watchdog`): one that only pointed at a phase would
leave the user to search the logs of many processes. One account a process, which has one worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LONGEST = 200
"""Characters of an error."""


@dataclass(frozen=True, slots=True)
class Account:
    """Counts of episodes.

    Attributes:
        waiting: by whom they wait for now.
        failed: by the error that ended them, since the batch began.
    """

    waiting: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


ACCOUNT = Account()


@contextmanager
def waiting_for(whom: str) -> Iterator[None]:
    """Count an episode as one that waits for ``whom``, and what it raises as the failure of ``whom``."""
    ACCOUNT.waiting[whom] += 1
    try:
        with blaming(whom):
            yield
    finally:
        ACCOUNT.waiting[whom] -= 1


@contextmanager
def blaming(whom: str) -> Iterator[None]:
    """Count what is raised as the failure of ``whom``, unless someone within is to blame already."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "rsim_blamed"):
            ACCOUNT.failed[f"{whom}: {_in_short(error)}"] += 1
            error.rsim_blamed = whom  # type: ignore[attr-defined]
        raise


def _in_short(error: Exception) -> str:
    """The first line of an error; of one from another process, of its cause."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"[:LONGEST]


def account(_worker: Any) -> Account:
    """Runs inside a worker's actor: its account."""
    return ACCOUNT
