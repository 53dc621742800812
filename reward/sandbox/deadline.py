"""Measures the time of a program without the time in which it waited for a free CPU.

On a loaded machine a program is often ready to run and gets no CPU. Charging it for that would turn a right answer into
a time-out and so into reward 0. CPU time alone is no measure either: a program that sleeps uses none. The kernel counts
for each process how long it waited on a run queue (``/proc/PID/schedstat``); everything else, computing and sleeping
alike, is charged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

MAX_EXTENSION = 10.0
"""A deadline is put off by at most this multiple of its seconds, so that a grading ends on a hopeless machine, too."""


class Deadline:
    """Ends after some seconds, not counting those in which the watched processes waited for a CPU.

    Only the main thread of each process is watched. A program whose own threads compete for the CPUs is not stopped
    earlier by that, but its limit of CPU time counts all threads.

    Args:
        seconds: seconds that are charged.
        processes: ids of the processes to watch, with their descendants; none for plain wall-clock time. Where the
            kernel keeps no statistics the time is wall-clock time as well.
    """

    def __init__(self, seconds: float, processes: Sequence[int] = ()):
        self._own_thread = f"/proc/self/task/{threading.get_native_id()}"
        self._start, self._seconds, self._processes = time.monotonic(), max(0.0, seconds), processes
        self._end = self._start + self._seconds
        self._waited_before = self._waited()

    def left(self) -> float:
        """Returns the seconds until the deadline, at most 0 if it has passed."""
        left = self._end - time.monotonic()
        if left <= 0 and self._processes:
            # The statistics are read only now, so that the usual case costs nothing.
            waited = min(self._waited() - self._waited_before, MAX_EXTENSION * self._seconds)
            self._end = max(self._end, self._start + self._seconds + waited)
            left = self._end - time.monotonic()
        return left

    def used(self) -> float:
        """Returns the seconds charged so far."""
        waited = max(0.0, self._waited() - self._waited_before)
        return max(0.0, time.monotonic() - self._start - waited)

    def _waited(self) -> float:
        if not self._processes:
            return 0.0
        # This thread, too: on a loaded machine it notices the end of a program late.
        return _waited_seconds_of(self._own_thread) + sum(map(_waited_seconds, self._processes))


def _waited_seconds(root: int) -> float:
    """Returns the seconds that a process and its living descendants have waited for a CPU."""
    seconds, pending = 0.0, [root]
    while pending:
        process = pending.pop()
        seconds += _waited_seconds_of(f"/proc/{process}")
        pending += map(int, _read(f"/proc/{process}/task/{process}/children").split())
    return seconds


def _waited_seconds_of(folder: str) -> float:
    """Returns the seconds that a task has waited for a CPU, 0 if it has ended or the kernel keeps no statistics."""
    fields = _read(f"{folder}/schedstat").split()
    return int(fields[1]) / 1e9 if len(fields) > 1 else 0.0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:  # the process has ended, or the kernel has no such file
        return b""
