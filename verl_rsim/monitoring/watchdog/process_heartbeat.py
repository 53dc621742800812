"""Kills the trainer when its heartbeat stops, and reports a trainer that died by itself.

The watchdog is a thread of the trainer's process. It cannot act when that process is stopped or when native code never
releases the interpreter lock; a second process can. This file is also the script that the second process runs.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

MAX_MISSED = 10
"""Missed polls in a row until the process is killed.

The timeout is divided into this many polls because a suspended machine stops both processes: after it resumes, the
monitor may see one missed poll before the next heartbeat arrives, and must not kill the process for that.
"""


@contextmanager
def heartbeat(timeout: float, key: str) -> Iterator[Callable[[], None]]:
    """Kills this process (SIGKILL) if no heartbeat is sent for ``timeout`` seconds while the context is open.

    Args:
        timeout: Longest time between two heartbeats, in seconds.
        key: The configuration key that sets the timeout; the error message quotes it.

    Yields:
        A function that sends a heartbeat.
    """
    # -I and -S: the script imports only the standard library, so that it starts fast and nothing can break it.
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(timeout), key]
    # A session of its own: Ray kills the process group of a dead worker, and this process must outlive it to report it.
    monitor_process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    channel = monitor_process.stdin
    assert channel is not None
    # A stopped monitor does not read. The pipe then fills up, and a blocking write would stop training.
    os.set_blocking(channel.fileno(), False)

    def beat() -> None:
        with suppress(BrokenPipeError, BlockingIOError):  # the monitor was killed or stopped; the job goes on without
            os.write(channel.fileno(), b".")

    try:
        yield beat
    finally:
        # Kill before closing the pipe: the monitor would report the end of its input as the trainer's death.
        monitor_process.kill()
        monitor_process.wait()
        channel.close()


def monitor(pid: int, timeout: float, key: str) -> None:
    """Reads heartbeats of the process ``pid`` from the standard input, and kills that process when they stop.

    Returns when the input ends, which means that the process has died.

    Args:
        pid: Process id of the trainer.
        timeout: Seconds without a heartbeat after which it is killed.
        key: The configuration key that sets the timeout.
    """
    process, missed = f"the trainer's process {pid} (the task runner)", 0
    while missed < MAX_MISSED:
        if not select.select([0], [], [], timeout / MAX_MISSED)[0]:
            missed += 1
        elif os.read(0, 4096):
            missed = 0
        else:
            print(f"{process} died: it was killed (was memory short?) or crashed", file=sys.stderr, flush=True)
            return
    message = f"{process} has sent no heartbeat for {timeout:.0f} s ({key}): it is stopped or hangs; ending the job"
    print(message, file=sys.stderr, flush=True)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    monitor(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
