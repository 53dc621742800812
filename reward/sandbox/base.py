"""Defines the interface of the sandboxes that run model-written code, and their limits.

A sandbox runs one call of :mod:`verl_rsim.reward.sandbox.guest_program`, given as source. ``run`` passes stdin and
returns stdout; ``run_cases`` does so for every case of a program. ``run_connected`` starts a solution and its tests in
two sandboxes joined by two pipes and returns the tests' report, which the solution can neither see nor write.

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

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from verl_rsim.utils.errors import ConfigError, RsimError

GRACE_SECONDS = 0.7
"""Seconds that the tests have to write their report once the solution's time is up."""
KILL_TIMEOUT_SECONDS = 10.0
"""Seconds after which a killed process that still runs is an error of the machine."""
_PACKAGE_IMPORTS = re.compile(r"^from (?:__future__|verl_rsim[.\w]*) import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE)
GUEST_FILES = ("guest_program.py", "guest_tests.py", "guest_cases.py")
MAX_REPORT_BYTES = 1 << 16
PROBE_TIMEOUT_SECONDS = 20.0


PROGRAM_FACTOR = 6
"""Time of all cases of a program together, as a multiple of the time of one case.

The reference graders limit the cases alone. This bound keeps one slow program from holding a worker for an hour.
"""


class SandboxError(RsimError, RuntimeError):
    """The sandbox did not work. Nothing is known of the code, so no score may be made of it."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Resource limits of one grading.

    Attributes:
        wall_seconds: time of one case of a program, or of all tests of a function. Time in which the program waits for
            a free CPU is not counted; see :mod:`verl_rsim.reward.sandbox.deadline`.
        cpu_seconds: CPU time of each process, all threads together. Each case of a program is a process.
        memory_bytes: address space of each process.
        threads: threads of each process, under bubblewrap; a second process is never allowed.
        file_bytes: size of each file, and of all files together.
        output_bytes: size of a program's stdout.
        open_files: open descriptors of each process.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 20
    memory_bytes: int = 1 << 30
    threads: int = 32
    file_bytes: int = 64 << 20
    output_bytes: int = 16 << 20
    open_files: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ConfigError(f"limits.{name}", getattr(self, name), "must be above 0")

    @property
    def program_seconds(self) -> float:
        """Time of all cases of a program together, counted like ``wall_seconds``."""
        return PROGRAM_FACTOR * self.wall_seconds

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
        seconds: time charged for it.
    """

    output: bytes
    code: int | None
    timed_out: bool = False
    overflowed: bool = False
    seconds: float = field(default=0.0, compare=False)


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

    def run_cases(
        self, source: str, imports: Sequence[str], inputs: Sequence[str]
    ) -> Generator[ProgramResult, None, None]:
        """Runs a program once for each input, one after the other, each time as if it were the first.

        Each run may take ``limits.wall_seconds`` and all together ``limits.program_seconds``. The caller may
        stop early.

        Args:
            source: the program.
            imports: import statements to run before it; see :mod:`verl_rsim.reward.code_grading.prelude`.
            inputs: text of the standard input of each run.

        Raises:
            SandboxError: the sandbox failed to start the program.
        """
        call = f"run_program({source!a}, {self.rlimits()}, {list(imports)!a})"
        left = self.limits.program_seconds
        for stdin in inputs:
            result = self.run(call, stdin, min(left, self.limits.wall_seconds))
            left -= result.seconds
            yield result

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
        (done,) = self.run_cases("print(int(input()) * 7)", (), ["6"])
        if (done.code, done.output) != (0, b"42\n"):
            raise SandboxError(f"{type(self).__name__} started a program, which failed: {done}")
        return self


@cache
def guest_source() -> str:
    """Returns the text that a sandboxed interpreter runs before a call: the three guest files, one after the other."""
    texts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in GUEST_FILES]
    # Python accepts ``from __future__`` at the beginning of a text only, and the guest does not have this package.
    later = [_PACKAGE_IMPORTS.sub("", text) for text in texts[1:]]
    return "\n".join([texts[0], *later])
