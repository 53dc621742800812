"""Keeps the driver from hanging on stopped Ray processes, while the job runs and at shutdown.

Ray gives up a stopped raylet after a minute, but a driver that waits for the job does not always notice, and
``ray.shutdown`` waits for the raylet without a timeout. Needed for Ray 2.60; remove it once Ray has these timeouts.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import ray

from verl_rsim.monitoring.watchdog import diagnosis

if TYPE_CHECKING:
    from ray._private.node import Node

SHUTDOWN_TIMEOUT_SECONDS = 60.0
"""Longest time that Ray's shutdown may take. The process then ends with a traceback and exit status 1."""
POLL_SECONDS = 5.0
"""Seconds between two checks for stopped processes."""


def install_timeouts(stall_seconds: float) -> None:
    """Bounds the time that this driver waits for stopped Ray processes.

    Args:
        stall_seconds: Seconds after which a stopped Ray process that this driver started is killed, which ends the job.
    """
    # Exit handlers run in reverse order. Importing ray has registered Ray's own, so this one runs before it.
    atexit.register(shutdown)
    threading.Thread(target=_kill_stalled, args=(stall_seconds,), daemon=True, name="rsim-ray").start()


def _kill_stalled(stall_seconds: float) -> None:
    """Kills, for ever, every own Ray process that has been stopped for ``stall_seconds``."""
    stopped_since: dict[int, float] = {}
    while True:
        time.sleep(POLL_SECONDS)
        own, now = _own_processes(), time.monotonic()
        # Children of these processes are skipped: actors are the watchdog's, which knows what they do.
        stopped = [pid for pid, _ in diagnosis.stopped_processes(own) if pid in own]
        stopped_since = {pid: stopped_since.get(pid, now) for pid in stopped}
        for pid, since in stopped_since.items():
            if now - since >= stall_seconds:
                _kill(pid, own[pid])


def _own_processes() -> dict[int, str]:
    """Returns the names, by process id, of the Ray processes that this driver started."""
    node: Node | None = ray._private.worker._global_node
    if node is None:  # before ray.init
        return {}
    names = {}
    for kind, processes in node.all_processes.items():
        for info in processes:
            names[info.process.pid] = f"Ray's {kind}"
    return names


def _kill(pid: int, name: str) -> None:
    print(f"{name} is stopped (process {pid}); it is ended with the job", file=sys.stderr, flush=True)
    os.kill(pid, signal.SIGKILL)


def shutdown() -> None:
    """Shuts Ray down within :data:`SHUTDOWN_TIMEOUT_SECONDS`, if this process is a driver.

    Kills stopped Ray processes that this driver started first, since ``ray.shutdown`` would wait for them. Those of a
    cluster that it only joined are left alone: other jobs may use them.
    """
    worker = ray._private.worker
    # May also be registered in one of Ray's workers, which must not shut its node down.
    if not ray.is_initialized() or worker.global_worker.mode != ray.SCRIPT_MODE:
        return
    for pid, name in diagnosis.stopped_processes(_own_processes()):
        _kill(pid, name)
    # faulthandler needs no interpreter lock, so its timeout also works while ray.shutdown blocks in native code.
    faulthandler.dump_traceback_later(SHUTDOWN_TIMEOUT_SECONDS, exit=True, file=sys.__stderr__ or 2)
    ray.shutdown(_exiting_interpreter=True)
    faulthandler.cancel_dump_traceback_later()
