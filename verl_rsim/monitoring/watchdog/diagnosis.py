"""Who is to blame for a job that stands still or fails, as far as the trainer's node and the agent loops can see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from verl_rsim.monitoring.watchdog.rollout_tracker import Account, account

ANSWER_SECONDS = 5.0
"""An agent loop's worker that takes longer does not answer."""
MOST = 3
"""Errors that are named."""


def stopped(processes: Mapping[int, str], root: Path = Path("/proc")) -> Iterator[tuple[int, str]]:
    """Which of these processes and their children do not run because somebody stopped them (Linux).

    Args:
        processes: names by process id.

    Yields:
        A process id, and what to call it.
    """
    parents, states = {}, {}
    for stat in root.glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]  # a name may hold anything
        except OSError:  # it has ended
            continue
        parents[int(stat.parent.name)], states[int(stat.parent.name)] = int(parent), state
    for pid, state in sorted(states.items()):
        owner = pid if pid in processes else parents[pid]
        if state == "T" and owner in processes:
            yield pid, ("" if owner == pid else "a child of ") + processes[owner]


def accounts(workers: Sequence[Any]) -> tuple[Account, int]:
    """What the agent loops' workers saw, and how many of them do not answer."""
    asked = [worker.__ray_call__.remote(account) for worker in workers]
    ready, silent = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    total, dead = Account(), 0
    for answer in ready:
        try:
            seen = ray.get(answer)
        except ray.exceptions.RayActorError:
            dead += 1
            continue
        total.waiting.update(seen.waiting)
        total.failed.update(seen.failed)
    return total, len(silent) + dead


def waited_for(workers: Sequence[Any]) -> Iterator[str]:
    """Whom the episodes wait for."""
    seen, silent = accounts(workers)
    if silent:
        yield f"{silent} of {len(workers)} agent loop workers (RsimAgentLoopWorker) do not answer"
    for whom, count in seen.waiting.most_common():
        if count:
            yield f"{count} episodes wait for {whom}"


def failures(workers: Sequence[Any]) -> str:
    """The commonest errors of the batch's episodes, for the end of a sentence."""
    failed = accounts(workers)[0].failed
    return "".join(f"; {count} times {error}" for error, count in failed.most_common(MOST))
