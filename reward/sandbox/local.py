"""Runs sandboxes as processes of this machine, connected by pipes, and makes sure that every process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from abc import abstractmethod
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from verl_rsim.reward.sandbox.base import (
    GRACE_SECONDS,
    KILL_TIMEOUT_SECONDS,
    MAX_REPORT_BYTES,
    PROBE_TIMEOUT_SECONDS,
    ConnectedResult,
    ProgramResult,
    Sandbox,
    SandboxError,
    guest_source,
)
from verl_rsim.reward.sandbox.deadline import Deadline
from verl_rsim.reward.sandbox.descriptors import FileDescriptors, read_until, wait_for_exit

NOBODY_UID = 65534
"""User id (and group id) that code runs as where this process is root."""


class SandboxProcess(Protocol):
    """One started sandbox."""

    @property
    def pid(self) -> int:
        """Id of the process that started it, from which all its processes descend."""

    def finish(self, deadline: Deadline | None = None) -> int | None:
        """Waits until the deadline, kills what still runs, and returns the exit code once every process is gone.

        Returns:
            The exit code, or None if the sandbox was killed before the program started.

        Raises:
            SandboxError: the sandbox failed to start the program, or a killed process does not end.
        """


class LocalSandbox(Sandbox):
    """Base of the sandboxes that run as processes of this machine, with pipes as their standard streams."""

    _compiled = b""
    """The guest program, compiled by the guest interpreter: saves a fifth of the time of each start."""

    @abstractmethod
    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> SandboxProcess:
        """Starts a program with these descriptors as its standard streams."""

    def probe(self) -> Sandbox:
        """Compiles the guest program inside the sandbox, runs one small program and returns the sandbox itself."""
        # Compiled in the sandbox, since the interpreter there may be of another version than this one.
        source = f"compile({guest_source()!a}, '<guest_program>', 'exec')"
        with FileDescriptors() as fds:
            compiler = f"import marshal, sys; sys.stdout.buffer.write(marshal.dumps({source}))"
            done = self._run(fds, Program(fds.file(compiler), False), "", PROBE_TIMEOUT_SECONDS)
        if done.code != 0:
            raise SandboxError(f"{type(self).__name__} started an interpreter, which failed with {done.code}")
        self._compiled = done.output
        return super().probe()

    def run(self, call: str, stdin: str, seconds: float) -> ProgramResult:
        """Runs a program until it ends, or kills it after ``seconds``."""
        with FileDescriptors() as fds:
            return self._run(fds, self._program(fds, call), stdin, seconds)

    def _program(self, fds: FileDescriptors, call: str) -> Program:
        return Program(fds.file(self._compiled + call.encode()), True)

    def _run(self, fds: FileDescriptors, program: Program, stdin: str, seconds: float) -> ProgramResult:
        limit = self.limits.output_bytes
        stdout, stdout_writer = fds.pipe()
        # stdin is a file rather than a pipe: a program that does not read it would block the writer here.
        process = self.start(program, fds.file(stdin.encode("utf-8", "surrogatepass")), stdout_writer, fds.null())
        deadline = Deadline(seconds, [process.pid])
        try:
            fds.close(stdout_writer)  # else the pipe would never reach its end
            output = read_until(stdout, limit + 1, deadline)
        except BaseException:
            process.finish()
            raise
        used = deadline.used()
        code = process.finish(deadline if output.complete else None)
        overflowed = len(output.content) > limit
        return ProgramResult(output.content[:limit], code, not output.complete and not overflowed, overflowed, used)

    def run_connected(self, tests: str, solution: str, seconds: float) -> ConnectedResult:
        """Runs two programs, each one's stdout connected to the other's stdin, and returns the stderr of the tests."""
        with FileDescriptors() as fds, ExitStack() as started:
            calls_reader, calls_writer = fds.pipe()
            replies_reader, replies_writer = fds.pipe()
            report_reader, report_writer = fds.pipe()
            solver = self.start(self._program(fds, solution), calls_reader, replies_writer, fds.null())
            started.callback(solver.finish)
            tester = self.start(self._program(fds, tests), replies_reader, calls_writer, report_writer)
            started.callback(tester.finish)
            # Each process must hold the only copy of its ends: the death of one then shows as end of file in the other.
            fds.close(calls_reader, calls_writer, replies_reader, replies_writer, report_writer)
            # Solution and tests take turns, so what either of them waits for a CPU delays the solution's answers.
            deadline = Deadline(seconds, [solver.pid, tester.pid])
            report = read_until(report_reader, MAX_REPORT_BYTES, deadline, b"\n")
            if report.complete:
                started.close()
                return ConnectedResult(report.content, False)
            # Only the solution is killed: the tests then run to their end and report how far they got.
            if solver.finish() is None:
                raise SandboxError(f"the sandbox took more than {seconds:.1f} s to start")
            rest = read_until(report_reader, MAX_REPORT_BYTES, Deadline(GRACE_SECONDS, [tester.pid]), b"\n")
            return ConnectedResult(report.content + rest.content, True)


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run in a sandbox.

    Attributes:
        fd: descriptor of a file with Python source, after the compiled guest program if there is one.
        compiled: True if the file starts with the compiled guest program.
    """

    fd: int
    compiled: bool

    def command(self, python: str, path: str | None = None) -> list[str]:
        """Returns the command line of an isolated interpreter that runs the program.

        Args:
            python: path of the interpreter.
            path: Python expression of what to open, in place of the descriptor.
        """
        load_guest = "import marshal; exec(marshal.load(file)); " if self.compiled else ""
        load = f"file = open({path or self.fd}, 'rb'); {load_guest}exec(file.read())"
        return [python, *["-I", "-S", "-B", "-X", "utf8", "-c"], load]


class SupervisedProcess:
    """A sandbox that a supervisor (bubblewrap, or a script of ours) starts and reports on.

    The supervisor writes JSON lines to a pipe that no guest process can reach: the first guest process's id, then its
    exit code. It returns only after every process it started is gone.
    """

    def __init__(self, process: subprocess.Popen[bytes], status: int):
        self._process, self._status = process, status
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """Id of the supervisor."""
        return self._process.pid

    def finish(self, deadline: Deadline | None = None) -> int | None:
        """Waits, kills what still runs, and returns the guest's exit code; a second call returns the same."""
        if self._status == -1:
            return self._code
        status_lines, killed = b"", False
        try:
            if not wait_for_exit(self._process, deadline):
                status_lines = read_until(self._status, 1 << 12, self._kill_deadline(), b"\n").content
                killed = self._kill(_status_value(status_lines, "child-pid"))
                if not wait_for_exit(self._process, self._kill_deadline()):
                    raise SandboxError("a killed sandbox does not end")
            status_lines += read_until(self._status, 1 << 12, self._kill_deadline()).content
        finally:
            os.close(self._status)
            self._status = -1
        self._code = _status_value(status_lines, "exit-code")
        if self._code is None and not killed:
            raise SandboxError(f"it ended with {self._process.returncode} before it started the program")
        return self._code

    def _kill_deadline(self) -> Deadline:
        return Deadline(KILL_TIMEOUT_SECONDS, [self.pid])

    def _kill(self, guest: int | None) -> bool:
        """Kills the first guest process: the only one, or the init process whose pid namespace ends with it."""
        # Not the supervisor: it has to survive, reap the guest and report its exit code.
        if guest is None or self._process.poll() is not None:
            return False
        with suppress(ProcessLookupError):
            os.kill(guest, signal.SIGKILL)
        return True


def _status_value(status_lines: bytes, key: str) -> int | None:
    """Returns a value from the supervisor's JSON lines, None if no complete line has it."""
    for line in status_lines.splitlines():
        if not line.endswith(b"}"):  # cut off in the middle
            continue
        status = json.loads(line)
        if key in status:
            return status[key]
    return None


def unprivileged_prefix() -> list[str]:
    """Returns the start of a command line that makes the rest run as nobody, where this process is root."""
    drop = ["setpriv", f"--reuid={NOBODY_UID}", f"--regid={NOBODY_UID}", "--clear-groups", "--"]
    return drop if os.geteuid() == 0 else []


def readable_interpreter() -> str:
    """Returns this interpreter without its venv if the guest's user can read it, else the system's."""
    for python in (os.path.realpath(sys.executable), os.path.realpath("/usr/bin/python3")):
        folders = Path(python).parents
        # Root can read everything, so os.access says nothing about nobody: each folder needs its x bit for others.
        hidden = os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in folders if folder.exists())
        if os.access(python, os.X_OK) and not hidden:
            return python
    raise SandboxError(
        f"user {NOBODY_UID}, which runs the code, can read no interpreter: "
        "install one outside of /root (Debian: python3)"
    )


class UnsafeLocal(LocalSandbox):
    """**NO PROTECTION.** Runs a plain process with your rights: limits against accidents, none against intent."""

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> SandboxProcess:
        """Starts the interpreter in a process group of its own."""
        command, fds = program.command(sys.executable), (program.fd,)
        return _ProcessGroup(
            subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=fds, start_new_session=True)
        )


class _ProcessGroup:
    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process

    @property
    def pid(self) -> int:
        """Id of the group's leader."""
        return self._process.pid

    def finish(self, deadline: Deadline | None = None) -> int | None:
        """Waits, kills the process group, and returns the exit code."""
        wait_for_exit(self._process, deadline)
        # The whole group, even if its leader has ended: children of the program would otherwise outlive it.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if not wait_for_exit(self._process, Deadline(KILL_TIMEOUT_SECONDS, [self.pid])):
            raise SandboxError("a killed process does not end")
        code = self._process.returncode
        return code if code >= 0 else 128 - code
