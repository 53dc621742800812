"""Bounds how long a driver waits for Ray where its processes stand still, while the job runs and when it is left.

Ray gives up a stopped raylet after a minute, but what waits for the job does not always hear of it, and Ray's shutdown
waits for the raylet without end. Ray 2.60; until these have bounds of their own.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time

import ray

from verl_rsim.monitoring.watchdog import diagnosis

LEAVE_SECONDS = 60.0
"""Longest time of Ray's shutdown; the process then ends with a traceback and exit status 1."""
LOOK_SECONDS = 5.0
"""Between two looks for stopped processes."""


def leave_in_time(stall_seconds: float) -> None:
    """Let this driver neither wait nor leave without end.

    When the interpreter exits :func:`leave` is called, before Ray's own handler, which this module's import registered.

    Args:
        stall_seconds: after which a process of Ray that this driver started and that is stopped is ended, and the job
            with it.
    """
    atexit.register(leave)
    threading.Thread(target=_end_stopped, args=(stall_seconds,), daemon=True, name="rsim-ray").start()


def _end_stopped(seconds: float) -> None:
    since: dict[int, float] = {}
    while True:
        time.sleep(LOOK_SECONDS)
        started, now = _started(), time.monotonic()
        since = {pid: since.get(pid, now) for pid, _ in diagnosis.stopped(started) if pid in started}
        for pid, began in since.items():
            if now - began >= seconds:
                _end(pid, started[pid])


def _started() -> dict[int, str]:
    """Ray's processes that this driver started, by their ids."""
    node = ray._private.worker._global_node
    processes = node.all_processes.items() if node else ()
    return {each.process.pid: f"Ray's {kind}" for kind, of_kind in processes for each in of_kind}


def _end(pid: int, who: str) -> None:
    print(f"{who} is stopped (process {pid}); it is ended with the job", file=sys.stderr, flush=True)
    os.kill(pid, signal.SIGKILL)


def leave() -> None:
    """Shut Ray down, if this process is a driver. Of Ray's processes that it started, stopped ones are killed first."""
    worker = ray._private.worker
    if not ray.is_initialized() or worker.global_worker.mode != ray.SCRIPT_MODE:
        return
    for pid, who in diagnosis.stopped(_started()):
        _end(pid, who)
    faulthandler.dump_traceback_later(LEAVE_SECONDS, exit=True, file=sys.__stderr__ or 2)
    ray.shutdown(_exiting_interpreter=True)
    faulthandler.cancel_dump_traceback_later()
