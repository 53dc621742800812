"""Starts a training job from the command line and shows it in a terminal that is fit to read.

With ``rsim.console=summary`` the terminal shows phases and training steps. Everything else goes to ``RUN/logs``, one
file a process. With ``rsim.console=verl``, and for jobs of one policy, verl's output stays as it is.
"""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from verl_rsim.config.recipes import compose_recipe
from verl_rsim.monitoring.job_events import EVENTS_VARIABLE
from verl_rsim.monitoring.job_output import JobOutput
from verl_rsim.monitoring.job_terminal import JobTerminal
from verl_rsim.training import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig

LOGS_FOLDER = "logs"
MAX_WAITING_LINES = 10_000
DRAIN_SECONDS = 5.0
"""Seconds without output after which an ended job is given up."""
_RESTART = "The same command starts again, with trainer.resume_mode=auto from the last checkpoint."
INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell reports it."""
SHUTDOWN_SECONDS = 60.0
"""Seconds that an interrupted job gets to end its processes before it is killed."""
_EVENTS_OVERRIDE = f"++ray_kwargs.ray_init.runtime_env.env_vars.{EVENTS_VARIABLE}='1'"
"""Reaches the job's processes on every node of a cluster, which do not inherit this process's environment."""
_ENVIRONMENT = {
    EVENTS_VARIABLE: "1",
    "RAY_DEDUP_LOGS": "0",  # or Ray replaces lines by "[repeated 3x]", and the logs have gaps
    "PYTHONUNBUFFERED": "1",
}


def train(recipe: str, overrides: Sequence[str], console: Console | None = None) -> int:
    """Trains a recipe and returns the exit status.

    Args:
        recipe: a recipe, a YAML file, or ``rsim_trainer``; see :func:`verl_rsim.config.recipes.locate`.
        overrides: hydra's overrides, and hydra's own options.
        console: what to print to; None for the standard output.

    Raises:
        ConfigError: there is no such recipe.
    """
    folder = _summary_folder(recipe, overrides)
    if folder is None:
        return launch.run(launch.train_command(recipe, overrides))
    command = launch.train_command(recipe, [*overrides, _EVENTS_OVERRIDE])
    return _run_quietly(command, folder / LOGS_FOLDER, console or Console(highlight=False))


def _summary_folder(recipe: str, overrides: Sequence[str]) -> Path | None:
    """Returns the run's folder if the job asks for the summary, else None."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if any(override.startswith("-") for override in overrides):
        return None  # an option of hydra's own, e.g. --cfg: it prints and trains nothing
    try:
        config: DictConfig = compose_recipe(recipe, overrides)
        if "rsim" not in config or config.rsim.get("console") != "summary":
            return None
        return Path(str(config.trainer.default_local_dir)).expanduser().absolute()
    except (HydraException, OmegaConfBaseException):
        return None  # the job itself says what is wrong


def _run_quietly(command: Sequence[str], logs: Path, console: Console) -> int:
    """Runs a job, splits its output into logs and shows its events."""
    output = JobOutput(logs)
    console.print(f"Logs of all processes: {logs}", soft_wrap=True)
    job = launch.start(command, _ENVIRONMENT)
    unread = _read_output(job)
    interrupted_phase = None
    try:
        with JobTerminal(console) as terminal:
            terminal.begin_phase("starting Ray and verl")
            try:
                for event in output.split(_lines(job, unread)):
                    terminal.show(event)
            except KeyboardInterrupt:
                interrupted_phase = terminal.phase
                _interrupt(job, unread, output)
        status = job.wait()
    finally:
        output.close()
    if interrupted_phase is not None:
        console.print(f"Interrupted in the phase: {interrupted_phase}. {_RESTART}", soft_wrap=True)
        return INTERRUPTED
    if status:
        _explain(output, status, console)
    return status


def _read_output(job: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """Starts the one thread that reads a job's output, and returns the queue of its lines; None is its end."""
    lines: queue.Queue[str | None] = queue.Queue(maxsize=MAX_WAITING_LINES)

    def read() -> None:
        assert job.stdout is not None
        for line in job.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True, name="job-output").start()
    return lines


def _lines(job: subprocess.Popen[str], unread: queue.Queue[str | None]) -> Iterator[str]:
    """Yields a job's unread lines until the job has ended.

    A process that the job left behind with the pipe in its hands cannot hold up the command: the thread waits for it.
    """
    while True:
        try:
            line = unread.get(timeout=DRAIN_SECONDS)
        except queue.Empty:
            if job.poll() is not None:
                return
            continue
        if line is None:
            return
        yield line


def _interrupt(job: subprocess.Popen[str], unread: queue.Queue[str | None], output: JobOutput) -> None:
    """Interrupts a job once and reads its output to the end, or else kills it after :data:`SHUTDOWN_SECONDS`."""
    job.send_signal(signal.SIGINT)
    timer = threading.Timer(SHUTDOWN_SECONDS, job.kill)
    timer.start()
    try:
        for _ in output.split(_lines(job, unread)):
            pass
    finally:
        timer.cancel()


def _explain(output: JobOutput, status: int, console: Console) -> None:
    """Prints why a job ended: the error, the last lines of the log that explains it, and the log's path."""
    path, tail = output.culprit()
    console.print(f"The job failed (exit status {status}). Last lines of {path}:", style="bold red", soft_wrap=True)
    for line in tail:
        console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)
    if output.errors:
        console.print(output.errors[-1], style="bold red", markup=False, soft_wrap=True)
