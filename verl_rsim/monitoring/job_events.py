"""Sends events of a job (phases, training steps, warnings) to the terminal that started it.

The processes of a job write to Ray's log, which reaches the driver's output line by line. An event is one such line: a
mark and JSON. :mod:`verl_rsim.monitoring.job_output` takes these lines out of the output again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

EVENTS_VARIABLE = "RSIM_EVENTS"
"""Environment variable that asks the processes of a job for events; ``verl-rsim train`` sets it to "1"."""
MARK = "@rsim-event@ "


def enabled() -> bool:
    """Returns True if a terminal waits for events."""
    return os.environ.get(EVENTS_VARIABLE) == "1"


def emit(kind: str, **fields: Any) -> None:
    """Prints an event, if a terminal waits for it.

    Args:
        kind: "phase", "step", "processes" or "warning".
        fields: in plain types; see :mod:`verl_rsim.monitoring.job_terminal` for what it reads.
    """
    if enabled():
        print(MARK + json.dumps({"kind": kind, **fields}, allow_nan=True), flush=True)


def warn(text: str) -> None:
    """Prints a warning to the job's log, and to the terminal that waits for events."""
    print(f"WARNING: {text}", flush=True)
    emit("warning", text=f"WARNING: {text}")


def parse(line: str) -> dict[str, Any] | None:
    """Returns the event of a line of output, or None if the line is none."""
    _, mark, text = line.partition(MARK)
    if not mark:
        return None
    try:
        event = json.loads(text)
    except ValueError:  # two processes wrote into one line
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


class EventConsole:
    """Sends the metrics of each training step as an event; implements the interface of verl's loggers.

    Args:
        total_steps: number of training steps of the job.
    """

    def __init__(self, total_steps: int):
        self.total_steps = total_steps

    def log(self, data: Mapping[str, float], step: int) -> None:
        """Sends the metrics of a training step or a validation."""
        numbers = {}
        for key, value in data.items():
            if isinstance(value, int | float) and math.isfinite(value):
                numbers[key] = value
        emit("step", step=step, total_steps=self.total_steps, metrics=numbers)
