"""A dead man's switch: a small process of its own that ends the trainer's when that gives no sign of life, and says so
when that has died.

The watchdog is a thread of the trainer's process, so it stands still with it: when the process is stopped, or code that
holds the interpreter's lock never returns. As a script it is the small process, which imports nothing of the package.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LOOKS = 10
"""Silent looks in a row until the process is ended. Many: one that was stopped together with it sees one."""


@contextmanager
def switch(seconds: float, key: str) -> Iterator[Callable[[], None]]:
    """End this process (SIGKILL) unless it gives a sign of life every ``seconds``; while the context lasts.

    Args:
        seconds: without one.
        key: what bounds them in the configuration.

    Yields:
        Gives a sign of life.
    """
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds), key]
    # of its own session: Ray kills a dead worker's process group, which must not silence who says that it died
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    channel = guard.stdin
    assert channel is not None
    os.set_blocking(channel.fileno(), False)

    def alive() -> None:
        with suppress(BrokenPipeError, BlockingIOError):  # the guard was killed or stopped: the job can do without it
            os.write(channel.fileno(), b".")

    try:
        yield alive
    finally:
        guard.kill()
        guard.wait()
        channel.close()


def guard(pid: int, seconds: float, key: str) -> None:
    """Read signs of life of the process ``pid`` from the standard input; end it when they do not come.

    The input ends when that process dies: one that leaves the switch ends this process before.
    """
    who, silent = f"the trainer's process {pid} (the task runner)", 0
    while silent < LOOKS:
        if not select.select([0], [], [], seconds / LOOKS)[0]:
            silent += 1
        elif os.read(0, 4096):
            silent = 0
        else:
            print(f"{who} died: it was killed (was memory short?) or crashed", file=sys.stderr, flush=True)
            return
    said = f"{who} has given no sign of life for {seconds:.0f} s"
    print(f"{said} ({key}): it is stopped or caught; ending the job", file=sys.stderr, flush=True)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
