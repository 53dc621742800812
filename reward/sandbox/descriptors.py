"""Opens, reads and waits for the file descriptors of sandboxes that run on this machine."""

from __future__ import annotations

import os
import select
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from verl_rsim.reward.sandbox.base import SandboxError
from verl_rsim.reward.sandbox.deadline import Deadline

MAX_LATE_READS = 256
"""Reads after a deadline: enough for what a pipe holds, whose usual size is 64 KiB, in small pieces."""


@dataclass(frozen=True, slots=True)
class PipeOutput:
    """Bytes read from a pipe.

    Attributes:
        content: the bytes.
        complete: True if the pipe ended, or the awaited terminator was read.
    """

    content: bytes
    complete: bool


def read_until(fd: int, limit: int, deadline: Deadline, terminator: bytes = b"") -> PipeOutput:
    """Reads a pipe until it ends or ``terminator`` arrives.

    Args:
        fd: descriptor to read.
        limit: maximum number of bytes.
        deadline: end of the time for reading.
        terminator: last bytes to read; empty to read to the end.
    """
    poller, content = select.poll(), bytearray()
    poller.register(fd, select.POLLIN)
    late_reads = 0
    while len(content) < limit:
        left = deadline.left()
        if not poller.poll(max(0.0, left) * 1000):
            if left <= 0:
                return PipeOutput(bytes(content), False)
            continue  # the deadline may have been put off
        if left <= 0:
            # This process was late, so what was written in time still counts. The number is bounded, since the writer
            # may go on writing.
            late_reads += 1
            if late_reads > MAX_LATE_READS:
                return PipeOutput(bytes(content), False)
        chunk = os.read(fd, 1 << 16)
        content += chunk
        if not chunk or (terminator and content.endswith(terminator)):
            return PipeOutput(bytes(content), True)
    return PipeOutput(bytes(content[:limit]), False)


class FileDescriptors:
    """Opens descriptors and closes them together. An OSError raised under it leaves as a SandboxError."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> FileDescriptors:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(*self._open)
        if isinstance(error, OSError):
            raise SandboxError(f"the machine refused: {error}") from error

    def pipe(self) -> tuple[int, int]:
        """Returns the ends of a new pipe: one to read, one to write."""
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def file(self, content: str | bytes) -> int:
        """Returns the descriptor of a new file in memory with this content, open for reading only."""
        data = content.encode() if isinstance(content, str) else content
        with os.fdopen(os.memfd_create("sandbox"), "wb") as file:
            file.write(data)
            file.flush()
            # Opened again: the guest must not write to the file, and needs a position of its own at the start.
            fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        self._open.add(fd)
        return fd

    def null(self) -> int:
        """Returns a descriptor that discards what is written to it."""
        fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._open.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        """Closes some of the descriptors early."""
        self._open.difference_update(fds)
        for fd in fds:
            os.close(fd)


def wait_for_exit(process: subprocess.Popen[bytes], deadline: Deadline | None) -> bool:
    """Waits for a process until a deadline (None: not at all) and returns True if it has ended."""
    # A pidfd wakes up at once; ``Popen.wait(timeout)`` sleeps in steps of up to 50 ms, as long as a whole grading.
    if process.poll() is None and deadline is not None:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(process.pid)
            try:
                poller = select.poll()
                poller.register(fd, select.POLLIN)
                while (left := deadline.left()) > 0 and not poller.poll(left * 1000):
                    pass
            finally:
                os.close(fd)
    return process.poll() is not None
