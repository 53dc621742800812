"""Sandboxes of this machine: processes on pipes, ended for certain."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from verl_rsim.reward.sandbox.base import (
    DEATH_SECONDS,
    GRACE_SECONDS,
    PROBE_SECONDS,
    REPORT_BYTES,
    Conversation,
    ProgramResult,
    Sandbox,
    SandboxError,
    inside_source,
)

NOBODY = 65534
"""The user that code runs as where this process is root."""


class Process(Protocol):
    """One started sandbox."""

    def end(self, patience: float = 0.0) -> int | None:
        """Wait so long, kill what still runs, and return the exit code once all of it is gone.

        Returns:
            None if it was killed before the program had started.

        Raises:
            SandboxError: the sandbox failed to start the program, or does not die.
        """


class LocalSandbox(Sandbox):
    """A sandbox whose processes are this machine's, so that their standard streams can be pipes."""

    _compiled = b""
    """``code_inside`` as the interpreter inside compiled it, which saves it a fifth of its time at each start."""

    @abstractmethod
    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> Process:
        """Start a program, with these descriptors as its standard streams."""

    def probed(self) -> Sandbox:
        """Itself, if it can run a program."""
        text = f"compile({inside_source()!a}, '<inside>', 'exec')"
        with Descriptors() as own:
            compiling = Program(own.file(f"import marshal, sys; sys.stdout.buffer.write(marshal.dumps({text}))"), False)
            done = self._run(own, compiling, "", PROBE_SECONDS)
        if done.code != 0:
            raise SandboxError(f"{type(self).__name__} started an interpreter, which failed with {done.code}")
        self._compiled = done.output
        return super().probed()

    def run(self, call: str, stdin: str, seconds: float) -> ProgramResult:
        with Descriptors() as own:
            return self._run(own, self._program(own, call), stdin, seconds)

    def _program(self, own: Descriptors, call: str) -> Program:
        return Program(own.file(self._compiled + call.encode()), True)

    def _run(self, own: Descriptors, program: Program, stdin: str, seconds: float) -> ProgramResult:
        deadline, limit = time.monotonic() + seconds, self.limits.output_bytes
        output, write = own.pipe()
        process = self.start(program, own.file(stdin.encode("utf-8", "surrogatepass")), write, own.null())
        try:
            own.close(write)
            said = read_until(output, limit + 1, deadline)
        except BaseException:
            process.end()
            raise
        code = process.end(deadline - time.monotonic() if said.ended else 0.0)
        overflowed = len(said.content) > limit
        return ProgramResult(said.content[:limit], code, not said.ended and not overflowed, overflowed)

    def converse(self, tests: str, solution: str, seconds: float) -> Conversation:
        deadline = time.monotonic() + seconds
        with Descriptors() as own, ExitStack() as started:
            (asked, ask), (answer, answered), (report, write) = own.pipe(), own.pipe(), own.pipe()
            solver = self.start(self._program(own, solution), asked, answered, own.null())
            started.callback(solver.end)
            tester = self.start(self._program(own, tests), answer, ask, write)
            started.callback(tester.end)
            own.close(asked, ask, answer, answered, write)
            said = read_until(report, REPORT_BYTES, deadline, b"\n")
            if said.ended:
                started.close()
                return Conversation(said.content, False)
            if solver.end() is None:  # without it the tests come to their end, and report how far they got
                raise SandboxError(f"the sandbox took more than {seconds:.1f} s to start")
            rest = read_until(report, REPORT_BYTES, time.monotonic() + GRACE_SECONDS, b"\n")
            return Conversation(said.content + rest.content, True)


@dataclass(frozen=True, slots=True)
class Said:
    """What came out of a pipe, and whether it came to its end."""

    content: bytes
    ended: bool


def read_until(fd: int, limit: int, deadline: float, stop: bytes = b"") -> Said:
    """Read a pipe until it ends, or says ``stop``; at most so many bytes, and until a time of the monotonic clock."""
    poller, content = select.poll(), bytearray()
    poller.register(fd, select.POLLIN)
    while len(content) < limit:
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return Said(bytes(content), False)
        chunk = os.read(fd, 1 << 16)
        content += chunk
        if not chunk or (stop and content.endswith(stop)):
            return Said(bytes(content), True)
    return Said(bytes(content[:limit]), False)


class Descriptors:
    """Descriptors that are closed together. An OSError under it is the machine's, so it leaves as a SandboxError."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(*self._open)
        if isinstance(error, OSError):
            raise SandboxError(f"the machine refused: {error}") from error

    def pipe(self) -> tuple[int, int]:
        """The ends to read and to write."""
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def file(self, content: str | bytes) -> int:
        """A file in memory with this content, open for reading only."""
        data = content.encode() if isinstance(content, str) else content
        with os.fdopen(os.memfd_create("sandbox"), "wb") as file:
            file.write(data)
            file.flush()
            fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        self._open.add(fd)
        return fd

    def null(self) -> int:
        """Where writing leads nowhere."""
        fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._open.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        """Close some of them early."""
        self._open.difference_update(fds)
        for fd in fds:
            os.close(fd)


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ends within so many seconds; without the naps of ``Popen.wait(timeout)``."""
    if process.poll() is None and seconds > 0:
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(process.pid)
            try:
                poller = select.poll()
                poller.register(fd, select.POLLIN)
                poller.poll(seconds * 1000)
            finally:
                os.close(fd)
    return process.poll() is not None


@dataclass(frozen=True, slots=True)
class Program:
    """A descriptor with Python source, after a compiled module that it is to be run in if there is one."""

    fd: int
    compiled: bool

    def command(self, python: str, where: str | None = None) -> list[str]:
        """The command line of an isolated interpreter that runs it; ``where`` is a literal to open instead."""
        first = "import marshal; exec(marshal.load(file)); " if self.compiled else ""
        load = f"file = open({where or self.fd}, 'rb'); {first}exec(file.read())"
        return [python, *["-I", "-S", "-B", "-X", "utf8", "-c"], load]


class Supervised:
    """A process started by a supervisor, which tells on a pipe that nothing inside can reach what it started and how
    that ended, in lines of JSON like bubblewrap's. It returns only after all that it started is gone."""

    def __init__(self, process: subprocess.Popen[bytes], status: int):
        self._process, self._status = process, status
        self._end: int | None = None

    def end(self, patience: float = 0.0) -> int | None:
        if self._status == -1:
            return self._end
        told, killed = b"", False
        try:
            if not wait_for(self._process, patience):
                told = read_until(self._status, 1 << 12, time.monotonic() + DEATH_SECONDS, b"\n").content
                killed = self._kill(_value(told, "child-pid"))
                if not wait_for(self._process, DEATH_SECONDS):
                    raise SandboxError("what was killed does not die")
            told += read_until(self._status, 1 << 12, time.monotonic() + DEATH_SECONDS).content
        finally:
            os.close(self._status)
            self._status = -1
        self._end = _value(told, "exit-code")
        if self._end is None and not killed:
            raise SandboxError(f"it ended with {self._process.returncode} before it started the program")
        return self._end

    def _kill(self, first: int | None) -> bool:
        if first is None or self._process.poll() is not None:
            return False
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        return True


def _value(told: bytes, key: str) -> int | None:
    lines = [json.loads(line) for line in told.splitlines() if line.endswith(b"}")]
    return next((line[key] for line in lines if key in line), None)


def become_nobody() -> list[str]:
    """What to put before a command for it to run as nobody, where this process is root."""
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    return drop if os.geteuid() == 0 else []


def readable_interpreter() -> str:
    """This interpreter without its venv, if the user inside can read it, else the system's."""
    for python in (os.path.realpath(sys.executable), os.path.realpath("/usr/bin/python3")):
        folders = Path(python).parents
        hidden = os.geteuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in folders if folder.exists())
        if os.access(python, os.X_OK) and not hidden:
            return python
    raise SandboxError(
        f"{NOBODY}, the user inside, can read no interpreter: install one outside of /root (Debian: python3)"
    )


class UnsafeLocal(LocalSandbox):
    """**NO PROTECTION.** A plain process of yours, with limits against accidents and none against intent."""

    def start(self, program: Program, stdin: int, stdout: int, stderr: int) -> Process:
        """Start it in a process group of its own."""
        command, fds = program.command(sys.executable), (program.fd,)
        return _Group(
            subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=fds, start_new_session=True)
        )


class _Group:
    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process

    def end(self, patience: float = 0.0) -> int | None:
        wait_for(self._process, patience)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if not wait_for(self._process, DEATH_SECONDS):
            raise SandboxError("a killed process does not die")
        code = self._process.returncode
        return code if code >= 0 else 128 - code
