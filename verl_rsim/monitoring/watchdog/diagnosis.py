"""Finds the cause when a job stalls or fails: stopped processes of this node, and reports of agent loop workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray.actor import ActorHandle

from verl_rsim.monitoring.watchdog.rollout_tracker import RolloutTracker, get_tracker

ANSWER_TIMEOUT_SECONDS = 5.0
"""Seconds after which an agent loop worker counts as not answering."""
MAX_ERRORS = 3
"""Number of different errors that a message quotes."""


def stopped_processes(processes: Mapping[int, str], root: Path = Path("/proc")) -> Iterator[tuple[int, str]]:
    """Finds which processes, and which of their children, are stopped by a signal or a debugger (Linux).

    Args:
        processes: Names of the processes, by process id.
        root: Folder with the kernel's process files.

    Yields:
        The id and the name of a stopped process.
    """
    parents: dict[int, int] = {}
    states: dict[int, str] = {}
    for stat in root.glob("[0-9]*/stat"):
        try:
            # A line is "pid (name) state parent ..."; the name may hold blanks and brackets.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # the process has ended since it was listed
            continue
        pid = int(stat.parent.name)
        parents[pid], states[pid] = int(parent), state
    for pid, state in sorted(states.items()):
        if state != "T":
            continue
        if pid in processes:
            yield pid, processes[pid]
        elif parents[pid] in processes:
            yield pid, f"a child of {processes[parents[pid]]}"


@dataclass(slots=True)
class RolloutReport:
    """Sums the counts of all agent loop workers.

    Attributes:
        total: Sum of the workers' counts.
        unanswered: Number of workers that died or did not answer in time.
    """

    total: RolloutTracker = field(default_factory=RolloutTracker)
    unanswered: int = 0


def collect_report(workers: Sequence[ActorHandle]) -> RolloutReport:
    """Asks all agent loop workers for their counts and adds them up."""
    report = RolloutReport()
    if not workers:
        return report
    requests = [worker.__ray_call__.remote(get_tracker) for worker in workers]
    ready, late = ray.wait(requests, num_returns=len(requests), timeout=ANSWER_TIMEOUT_SECONDS)
    report.unanswered = len(late)
    for request in ready:
        try:
            tracker = ray.get(request)
        except ray.exceptions.RayActorError:
            report.unanswered += 1
            continue
        report.total.waiting.update(tracker.waiting)
        report.total.errors.update(tracker.errors)
    return report


def describe_waits(workers: Sequence[ActorHandle]) -> Iterator[str]:
    """Yields sentences about what episodes are waiting for, and about workers that do not answer."""
    report = collect_report(workers)
    if report.unanswered:
        yield f"{report.unanswered} of {len(workers)} agent loop workers (RsimAgentLoopWorker) do not answer"
    for component, count in report.total.waiting.most_common():
        if count:
            yield f"{count} episodes wait for {component}"


def describe_errors(workers: Sequence[ActorHandle]) -> str:
    """Returns the most frequent errors of the batch's episodes, as the end of a sentence; "" without errors."""
    most_frequent = collect_report(workers).total.errors.most_common(MAX_ERRORS)
    return "".join(f"; {count} times {error}" for error, count in most_frequent)
