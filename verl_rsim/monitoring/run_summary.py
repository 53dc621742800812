"""What a run did, on one screen, from the metrics file that verl's file logger wrote."""

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
    """The logged steps in order, each with its metrics; a last line cut short is left out.

    Raises:
        DataError: no such file, or nothing in it.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; train with trainer.logger=[console,file]")
    steps = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        steps.append({"step": record["step"], **record["data"]})
    if not steps:
        raise DataError(f"{path}: holds no step yet")
    return steps


def metrics_file(trainer: Any) -> Path:
    """Where verl's file logger writes (``verl.utils.tracking.FileLogger``); ``trainer``: the configuration's block."""
    if path := os.environ.get("VERL_FILE_LOGGER_PATH"):
        return Path(path)
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    return root / trainer.project_name / f"{trainer.experiment_name}.jsonl"


def metrics_until(path: Path, last_step: int) -> bytes:
    """The lines of a metrics file up to a step, that step's included. Nothing for step 0: the run begins anew."""
    if not last_step or not path.is_file():
        return b""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
        except ValueError:  # cut short
            continue
        if step <= last_step:
            kept.append(line)
    return b"".join(kept)


def print_summary(path: Path, console: Console | None = None) -> None:
    """Print rewards before and after, strategy frequencies, time by phase."""
    console = console or Console()
    steps = read_metrics(path)
    training = [step for step in steps if "timing_s/step" in step]
    validation = [step for step in steps if "val-reasoner/acc" in step]
    if validation:
        console.print(_before_after("Validation", validation, "val-", ("reasoner/acc", "planner/reward", "rsim/turns")))
    if training:
        keys = ("reasoner/acc", "reasoner/reward", "planner/reward", "strategy/entropy", "rsim/turns")
        console.print(_before_after("Training", training, "", keys))
        console.print(_strategies(training))
        console.print(_timing(training))


def _before_after(title: str, steps: list[dict], prefix: str, keys: tuple[str, ...]) -> Table:
    first, last = steps[0], steps[-1]
    table = Table("", f"step {first['step']}", f"step {last['step']}", title=title, title_justify="left")
    for key in keys:
        if prefix + key in first and prefix + key in last:
            table.add_row(key, f"{first[prefix + key]:.3f}", f"{last[prefix + key]:.3f}")
    return table


def _strategies(steps: list[dict]) -> Table:
    first, last = steps[0], steps[-1]
    table = Table("strategy", f"step {first['step']}", f"step {last['step']}", title="Shares", title_justify="left")
    for strategy in STRATEGIES:
        key = f"strategy/{strategy.name}"
        table.add_row(strategy.title, f"{first[key]:.1%}", f"{last[key]:.1%}")
    return table


def _timing(steps: list[dict]) -> Table:
    table = Table("phase", "seconds a step", title="Time", title_justify="left")
    names = dict.fromkeys(key for step in steps for key in step if key.startswith("timing_s/"))
    for name in names:
        seconds = [step[name] for step in steps if name in step]
        table.add_row(name.removeprefix("timing_s/"), f"{fmean(seconds):.2f}")
    return table
