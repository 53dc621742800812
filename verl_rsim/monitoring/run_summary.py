"""Prints a summary of a run from the metrics file that verl's file logger wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.utils.errors import DataError


def read_metrics(path: Path) -> list[dict]:
    """Returns the metrics of each logged step, in the order of the file. Skips incomplete lines.

    Raises:
        DataError: The file does not exist or holds no step.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; train with trainer.logger=[console,file]")
    steps = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a job that was killed leaves an incomplete line
            continue
        steps.append({"step": record["step"], **record["data"]})
    if not steps:
        raise DataError(f"{path}: holds no step yet")
    return steps


def metrics_file(trainer: Any) -> Path:
    """Returns the path that verl's file logger (``verl.utils.tracking.FileLogger``) writes to.

    Args:
        trainer: The configuration's block ``trainer``.
    """
    if path := os.environ.get("VERL_FILE_LOGGER_PATH"):
        return Path(path)
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    return root / trainer.project_name / f"{trainer.experiment_name}.jsonl"


def metrics_until(path: Path, last_step: int) -> bytes:
    """Returns the lines of a metrics file up to and including a step.

    Returns nothing for step 0, since the run then begins anew and earlier lines are another run's.
    """
    if not last_step or not path.is_file():
        return b""
    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
        except ValueError:  # an incomplete line
            continue
        if step <= last_step:
            lines.append(line)
    return b"".join(lines)


def print_summary(path: Path, console: Console | None = None) -> None:
    """Prints first and last rewards, the shares of the strategies and the time of each phase."""
    console = console or Console()
    steps = read_metrics(path)
    training = [step for step in steps if "timing_s/step" in step]
    validation = [step for step in steps if "val-reasoner/acc" in step]
    if validation:
        console.print(
            _first_and_last("Validation", validation, "val-", ("reasoner/acc", "planner/reward", "rsim/turns"))
        )
    if training:
        keys = ("reasoner/acc", "reasoner/reward", "planner/reward", "strategy/entropy", "rsim/turns")
        console.print(_first_and_last("Training", training, "", keys))
        console.print(_strategies(training))
        console.print(_timing(training))


def _first_and_last(title: str, steps: list[dict], prefix: str, keys: tuple[str, ...]) -> Table:
    """Returns a table that compares the first and the last step."""
    first, last = steps[0], steps[-1]
    table = Table("", f"step {first['step']}", f"step {last['step']}", title=title, title_justify="left")
    for key in keys:
        if prefix + key in first and prefix + key in last:
            table.add_row(key, f"{first[prefix + key]:.3f}", f"{last[prefix + key]:.3f}")
    return table


def _strategies(steps: list[dict]) -> Table:
    """Returns a table of each strategy's share in the first and the last step."""
    first, last = steps[0], steps[-1]
    table = Table("strategy", f"step {first['step']}", f"step {last['step']}", title="Shares", title_justify="left")
    for strategy in STRATEGIES:
        key = f"strategy/{strategy.name}"
        table.add_row(strategy.title, f"{first[key]:.1%}", f"{last[key]:.1%}")
    return table


def _timing(steps: list[dict]) -> Table:
    """Returns a table of the mean time of each phase."""
    table = Table("phase", "seconds a step", title="Time", title_justify="left")
    seconds: dict[str, list[float]] = {}
    for step in steps:
        for key, value in step.items():
            if key.startswith("timing_s/"):
                seconds.setdefault(key.removeprefix("timing_s/"), []).append(value)
    for phase, values in seconds.items():
        table.add_row(phase, f"{fmean(values):.2f}")
    return table
