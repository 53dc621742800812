"""Running code nobody has read: limits, back-ends, and the two ways of running that grading needs.

What runs is always one call of :mod:`verl_rsim.reward.sandbox.guest_program`, given as source. ``run`` passes stdin and
returns stdout. ``converse`` starts a solution and its tests in two sandboxes joined by two pipes and returns the tests'
report, which the solution can neither see nor write.

========================  =========================================================================================
``bubblewrap`` (default)  namespaces and a seccomp filter: see :mod:`verl_rsim.reward.sandbox.bubblewrap`
``sandlock``              Landlock and seccomp from PyPI alone: see :mod:`verl_rsim.reward.sandbox.sandlock`
``fusion``                a SandboxFusion service by URL: see :mod:`verl_rsim.reward.sandbox.fusion`
``unsafe_local``          **NO PROTECTION**: a plain process as the user you are, which can read your keys, delete your
                          files and use your network. Only for code you would run yourself without looking
========================  =========================================================================================

``auto`` is bubblewrap, else sandlock, else an error that says what to install: never less protection than was asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from verl_rsim.utils.errors import ConfigError, RsimError

GRACE_SECONDS = 0.7
"""What the tests have to write their report once the solution's time is up."""
DEATH_SECONDS = 10.0
"""After this a killed process that has not gone is an error of the machine."""
REPORT_BYTES = 1 << 16
PROBE_SECONDS = 20.0


class SandboxError(RsimError, RuntimeError):
    """The sandbox did not work: nothing is known of the code, and no score may be made of it."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one grading may use.

    Attributes:
        wall_seconds: from start to verdict, all the cases of a grading together.
        cpu_seconds: of each process.
        memory_bytes: address space of each process.
        threads: of each process, under bubblewrap; there is no second process.
        file_bytes: of each file, and of all files together.
        output_bytes: of a program's stdout.
        open_files: descriptors of each process.
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

    def inside(self) -> dict[str, int]:
        """The limits a process sets itself before it runs anything of others, by the names of RLIMIT_*."""
        return {
            "CORE": 0,
            "CPU": self.cpu_seconds,
            "AS": self.memory_bytes,
            "FSIZE": self.file_bytes,
            "NOFILE": self.open_files,
        }


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended.

    Attributes:
        output: what it wrote to stdout, at most the limit.
        code: exit code, 128 + N if killed by signal N, None if its time was up before it had started.
        timed_out: it was killed because its time was up.
        overflowed: it was killed because it wrote more than the limit.
    """

    output: bytes
    code: int | None
    timed_out: bool = False
    overflowed: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the tests reported, b"" if they did not come to it, and whether the solution's time was up."""

    report: bytes
    timed_out: bool


class Sandbox(ABC):
    """A place to run code. Safe to use from several threads at once."""

    def __init__(self, limits: SandboxLimits):
        self.limits = limits

    def inside(self) -> dict[str, int]:
        """The limits that what runs here sets itself."""
        return self.limits.inside()

    @abstractmethod
    def run(self, call: str, stdin: str, seconds: float) -> ProgramResult:
        """Run a program to its end, or for so long.

        Raises:
            SandboxError: the sandbox failed to start the program.
        """

    @abstractmethod
    def converse(self, tests: str, solution: str, seconds: float) -> Conversation:
        """Run two programs, each one's stdout the other's stdin, and return what the tests write to stderr.

        The solution has so many seconds, the tests ``GRACE_SECONDS`` more.

        Raises:
            SandboxError: one of them was never started.
        """

    def probed(self) -> Sandbox:
        """Itself, if it can run a program.

        Raises:
            SandboxError: it cannot.
        """
        done = self.run(f"play('print(6 * 7)', {self.inside()})", "", PROBE_SECONDS)
        if (done.code, done.output) != (0, b"42\n"):
            raise SandboxError(f"{type(self).__name__} started a program, which failed: {done}")
        return self


@cache
def inside_source() -> str:
    """The text of :mod:`verl_rsim.reward.sandbox.guest_program`."""
    return Path(__file__).with_name("guest_program.py").read_text(encoding="utf-8")
