"""Serves the cases of one program from a single sandbox; see :mod:`verl_rsim.reward.sandbox.guest_cases`."""

from __future__ import annotations

import socket
from collections.abc import Callable

from verl_rsim.reward.sandbox.base import PROBE_TIMEOUT_SECONDS, ProgramResult, SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.deadline import Deadline
from verl_rsim.reward.sandbox.descriptors import FileDescriptors, read_until
from verl_rsim.reward.sandbox.local import SandboxProcess

EXIT_CRASH = 255
"""Exit code of a case whose sandbox was killed with it."""


class CaseServer:
    """A sandbox whose guest runs a program once for each case that it gets over a socket.

    Args:
        start: starts the sandbox with this descriptor as the guest's stdin.
        limits: limits of each case.

    Raises:
        SandboxError: the sandbox did not start.
    """

    def __init__(self, start: Callable[[int], SandboxProcess], limits: SandboxLimits):
        self._limits = limits
        self._control, guest_end = socket.socketpair()
        with guest_end:
            self._process = start(guest_end.fileno())
        self.usable = True
        """False once a case has changed the sandbox, or was killed with it."""
        # The start is not charged to the first case: on a loaded machine it can take longer than the case.
        ready = read_until(self._control.fileno(), len(b"ready"), Deadline(PROBE_TIMEOUT_SECONDS, [self._process.pid]))
        if ready.content != b"ready":
            started = self.close() is not None
            seconds = f"took more than {PROBE_TIMEOUT_SECONDS:.0f} s to start"
            raise SandboxError(f"the sandbox {'ended before its first case' if started else seconds}")

    def run(self, stdin: str, seconds: float) -> ProgramResult:
        """Runs the program with this text as its stdin, for at most ``seconds``."""
        limit = self._limits.output_bytes
        with FileDescriptors() as fds:
            stdout, stdout_writer = fds.pipe()
            deadline = Deadline(seconds, [self._process.pid])
            self._send(fds.file(stdin.encode("utf-8", "surrogatepass")), stdout_writer)
            fds.close(stdout_writer)  # else the pipe would never reach its end
            output = read_until(stdout, limit + 1, deadline)
            answer = b""
            if output.complete:  # it may have closed its stdout and go on
                answer = read_until(self._control.fileno(), 16, deadline, b"\n").content
        overflowed = len(output.content) > limit
        code, reusable = _parse_answer(answer)
        used = deadline.used()
        if not reusable:
            self.close()
        if answer.startswith(b"unfiltered"):
            raise SandboxError("the guest could not install its seccomp filter, so it did not run the program")
        timed_out = deadline.left() <= 0 and code is None and not overflowed
        return ProgramResult(output.content[:limit], EXIT_CRASH if code is None else code, timed_out, overflowed, used)

    def _send(self, stdin: int, stdout: int) -> None:
        try:
            socket.send_fds(self._control, [b"c"], [stdin, stdout])
        except OSError as error:
            raise SandboxError(f"the sandbox ended between two cases: {error}") from error

    def close(self) -> int | None:
        """Kills the sandbox, waits for its end, and returns its exit code; None if it was killed before it started."""
        self.usable = False
        self._control.close()
        return self._process.finish()


def _parse_answer(answer: bytes) -> tuple[int | None, bool]:
    """Returns the exit code in the guest's answer (None without one), and True if the sandbox can serve again."""
    parts = answer.split()
    if not answer.endswith(b"\n") or len(parts) != 2:
        return None, False
    return int(parts[0]), parts[1] == b"1"
