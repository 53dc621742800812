"""Commands that do a job's work in processes of their own, and end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from verl_rsim.config.recipes import locate
from verl_rsim.utils.artifact_folders import HOME, home

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def train_command(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Training by a recipe, through verl's entry point.

    Raises:
        ConfigError: there is no such recipe.
    """
    folder, name = locate(recipe)
    command = [sys.executable, "-m", "verl.trainer.main_ppo"]
    return [*command, "--config-path", folder, "--config-name", name, *overrides]


def own_command(*arguments: str) -> list[str]:
    """A command of verl-rsim, in a process of its own."""
    return [sys.executable, "-m", "verl_rsim", *arguments]


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a command to its end; a kill of this process kills it too, which Ray's processes notice (Linux only).

    Args:
        environment: added to this process's, and to where home and metrics are.

    Returns:
        Its exit status.
    """
    told = {"VERL_FILE_LOGGER_ROOT": str(home() / "metrics"), **os.environ, HOME: str(home()), **(environment or {})}
    return subprocess.call(command, env=told, preexec_fn=_tie() if platform.system() == "Linux" else None)


def _tie():
    """What the child does first: asks the kernel to be killed with its parent."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask
