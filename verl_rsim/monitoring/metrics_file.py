"""Reads the metrics file that verl's file logger writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
