"""Defines the interface of the sandboxes that run model-written code, and their limits.

A sandbox runs one call of :mod:`verl_rsim.reward.sandbox.guest_program`, given as source. ``run`` passes stdin and
returns stdout. ``run_connected`` starts a solution and its tests in two sandboxes joined by two pipes and returns the
tests' report, which the solution can neither see nor write.

========================  =========================================================================================
``bubblewrap`` (default)  namespaces and a seccomp filter: see :mod:`verl_rsim.reward.sandbox.bubblewrap`
``sandlock``              Landlock and seccomp from PyPI alone: see :mod:`verl_rsim.reward.sandbox.sandlock`
``fusion``                a SandboxFusion service by URL: see :mod:`verl_rsim.reward.sandbox.fusion`
``unsafe_local``          **NO PROTECTION**: a plain process with your own rights, which can read your keys, delete your
                          files and use your network. Only for code you would run yourself without looking
========================  =========================================================================================

``auto`` is bubblewrap, else sandlock, else an error that says what to install. It never falls back to no protection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from verl_rsim.utils.errors import ConfigError, RsimError

GRACE_SECONDS = 0.7
"""Seconds that the tests have to write their report once the solution's time is up."""
KILL_TIMEOUT_SECONDS = 10.0
"""Seconds after which a killed process that still runs is an error of the machine."""
MAX_REPORT_BYTES = 1 << 16
PROBE_TIMEOUT_SECONDS = 20.0


class SandboxError(RsimError, RuntimeError):
    """The sandbox did not work. Nothing is known of the code, so no score may be made of it."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Resource limits of one grading.

    Attributes:
        wall_seconds: wall-clock time from start to verdict, for all cases of a grading together.
        cpu_seconds: CPU time of each process.
        memory_bytes: address space of each process.
        threads: threads of each process, under bubblewrap; a second process is never allowed.
        file_bytes: size of each file, and of all files together.
        output_bytes: size of a program's stdout.
        open_files: open descriptors of each process.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 10
    memory_bytes: int = 1 << 30
    threads: int = 32
    file_bytes: int = 64 << 20
    output_bytes: int = 1 << 20
    open_files: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ConfigError(f"limits.{name}", getattr(self, name), "must be above 0")

    def rlimits(self) -> dict[str, int]:
        """Returns the limits that a guest process sets itself before it runs foreign code, by the names of RLIMIT_*."""
        return {
            "CORE": 0,
            "CPU": self.cpu_seconds,
            "AS": self.memory_bytes,
            "FSIZE": self.file_bytes,
            "NOFILE": self.open_files,
        }


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """Output and exit status of a program.

    Attributes:
        output: its stdout, cut at the limit.
        code: exit code, 128 + N if killed by signal N, None if its time was up before it started.
        timed_out: True if it was killed because its time was up.
        overflowed: True if it was killed because it wrote more than the limit.
    """

    output: bytes
    code: int | None
    timed_out: bool = False
    overflowed: bool = False


@dataclass(frozen=True, slots=True)
class ConnectedResult:
    """Result of a solution and its tests that ran connected to each other.

    Attributes:
        report: the tests' report, b"" if they did not get as far as writing one.
        timed_out: True if the solution's time was up.
    """

    report: bytes
    timed_out: bool


class Sandbox(ABC):
    """Runs code in isolation. Safe to use from several threads at once."""

    def __init__(self, limits: SandboxLimits):
        self.limits = limits

    def rlimits(self) -> dict[str, int]:
        """Returns the limits that a guest process of this sandbox sets itself, by the names of RLIMIT_*."""
        return self.limits.rlimits()

    @abstractmethod
    def run(self, call: str, stdin: str, seconds: float) -> ProgramResult:
        """Runs a program until it ends, or kills it after ``seconds``.

        Args:
            call: a call of a function of :mod:`verl_rsim.reward.sandbox.guest_program`, as source.
            stdin: text of its standard input.
            seconds: wall-clock limit.

        Raises:
            SandboxError: the sandbox failed to start the program.
        """

    @abstractmethod
    def run_connected(self, tests: str, solution: str, seconds: float) -> ConnectedResult:
        """Runs two programs, each one's stdout connected to the other's stdin, and returns the stderr of the tests.

        Args:
            tests: the call that runs the tests, as source.
            solution: the call that runs the solution, as source.
            seconds: wall-clock limit of the solution; the tests have ``GRACE_SECONDS`` more.

        Raises:
            SandboxError: one of them was never started.
        """

    def probe(self) -> Sandbox:
        """Runs one small program and returns the sandbox itself.

        Raises:
            SandboxError: the program did not run as it should.
        """
        done = self.run(f"run_program('print(6 * 7)', {self.rlimits()})", "", PROBE_TIMEOUT_SECONDS)
        if (done.code, done.output) != (0, b"42\n"):
            raise SandboxError(f"{type(self).__name__} started a program, which failed: {done}")
        return self


@cache
def guest_source() -> str:
    """Returns the text of :mod:`verl_rsim.reward.sandbox.guest_program`."""
    return Path(__file__).with_name("guest_program.py").read_text(encoding="utf-8")
