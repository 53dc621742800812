"""Runs commands in processes of their own that die with the process that started them."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from verl_rsim.config.recipes import locate
from verl_rsim.utils.artifact_folders import HOME, home

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def train_command(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Returns the command that trains a recipe through verl's entry point.

    Raises:
        ConfigError: there is no such recipe.
    """
    folder, name = locate(recipe)
    command = [sys.executable, "-m", "verl.trainer.main_ppo"]
    return [*command, "--config-path", folder, "--config-name", name, *overrides]


def cli_command(*arguments: str) -> list[str]:
    """Returns a command of the verl-rsim CLI, to be run in a process of its own."""
    return [sys.executable, "-m", "verl_rsim", *arguments]


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Runs a command to its end. On Linux, the command is killed if this process is killed.

    Ray's processes end when the job's driver does, so that a killed command leaves no job behind.

    Args:
        environment: variables added to those of this process and to the folders of home and metrics.

    Returns:
        The exit status of the command.
    """
    return subprocess.call(command, env=_environment(environment), preexec_fn=_die_with_parent())


def start(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a command as :func:`run` does, with its output and its errors together in ``stdout``, line by line."""
    return subprocess.Popen(
        command,
        env=_environment(environment),
        preexec_fn=_die_with_parent(),
        start_new_session=True,  # Ctrl-C reaches this process alone, which interrupts the command once
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
    )


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the environment of a command: this process's, the folders of home and metrics, and what is added."""
    defaults = {"VERL_FILE_LOGGER_ROOT": str(home() / "metrics")}
    return {**defaults, **os.environ, HOME: str(home()), **(added or {})}


def _die_with_parent() -> Callable[[], None] | None:
    """Returns the function that makes the child, before it runs the command, ask to be killed with its parent.

    None where the system is not Linux.
    """
    if platform.system() != "Linux":
        return None
    # Loaded here, before the fork: between fork and exec a lock held by another thread would never be released.
    libc, parent = ctypes.CDLL(None), os.getpid()

    def request_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The kernel sends no signal for a parent that died before the request.
        if os.getppid() != parent:
            os._exit(1)

    return request_death_signal
