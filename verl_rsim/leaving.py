"""Bounds how long a driver takes to leave Ray, whose shutdown waits without end for a raylet that stands still.

Ray 2.60; until its shutdown has a bound of its own.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys

import ray

from verl_rsim import culprit

LEAVE_SECONDS = 60.0
"""Longest time of Ray's shutdown; the process then ends with a traceback and exit status 1."""


def leave_in_time() -> None:
    """Leave Ray so when the interpreter exits: before Ray's own handler, which this module's import has registered."""
    atexit.register(leave)


def leave() -> None:
    """Shut Ray down, if this process is a driver. Of Ray's processes that it started, stopped ones are killed first."""
    worker = ray._private.worker
    if not ray.is_initialized() or worker.global_worker.mode != ray.SCRIPT_MODE:
        return
    started = worker._global_node.all_processes.items()
    names = {process.process.pid: f"Ray's {kind}" for kind, processes in started for process in processes}
    for pid, who in culprit.stopped(names):
        print(f"{who} is stopped (process {pid}); it is ended with the job", file=sys.stderr, flush=True)
        os.kill(pid, signal.SIGKILL)
    faulthandler.dump_traceback_later(LEAVE_SECONDS, exit=True, file=sys.__stderr__ or 2)
    ray.shutdown(_exiting_interpreter=True)
    faulthandler.cancel_dump_traceback_later()
