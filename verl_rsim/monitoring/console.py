"""Prints a training step as one screen, in place of verl's single long line.

Shows only what all of verl's loggers get. A metric that a training step does not have leaves its cell empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.alarms import POLICIES

WIDTH = 100
"""Columns of the screen. Fixed, since the output goes through Ray's log, which is not a terminal."""
BAR_WIDTH = 8
ROLE_COLUMNS = {
    "reward": ("reward", ".3f"),
    "± std": ("reward/std", ".3f"),
    "zero groups": ("zero_groups", ".0%"),
    "|grad|": ("grad_norm", ".3g"),
    "entropy": ("entropy", ".3f"),
    "kl": ("ppo_kl", ".1e"),
    "clipped": ("pg_clipfrac", ".1%"),
    "server": ("server_seconds", ".1f"),
}
"""Columns of the table of policies: title, metric after ``{policy}/``, number format."""
Metrics = Mapping[str, float]


class StepConsole:
    """Prints each training step as one screen; implements the interface of verl's loggers.

    Args:
        total_steps: Number of training steps of the job.
        console: Console to print to; if None, stdout with :data:`WIDTH` columns.
    """

    def __init__(self, total_steps: int, console: Console | None = None):
        self.total_steps = total_steps
        self.console = console or Console(width=WIDTH)
        self._step_seconds: list[float] = []

    def log(self, data: Metrics, step: int) -> None:
        """Prints the metrics of a training step or a validation."""
        if "timing_s/step" in data:
            self._step_seconds.append(data["timing_s/step"])
        remaining = fmean(self._step_seconds) * (self.total_steps - step) if self._step_seconds else 0.0
        self.console.print(render(data, step, self.total_steps, remaining))


class CompactMetrics(dict[str, float]):
    """Holds a validation's metrics and prints as a short text.

    verl's training loop prints the returned dictionary in full, after the screen has already shown it.
    """

    def __repr__(self) -> str:
        return f"{len(self)} values, in the loggers"


def render(data: Metrics, step: int, total_steps: int, remaining: float) -> RenderableType:
    """Returns the screen of a training step, or one line for a validation.

    Args:
        data: The metrics.
        step: Number of the training step.
        total_steps: Number of training steps of the job.
        remaining: Estimated seconds until the end of training; 0 if unknown.
    """
    parts: list[RenderableType] = []
    if "rsim/turns" in data:
        columns = Table.grid(padding=(0, 3))
        columns.add_row(_strategies(data), _overview(data))
        parts += [_header(data, step, total_steps, remaining), columns, _alarms(data)]
    if "val-reasoner/acc" in data:
        parts.append(_validation(data, step))
    return Group(*parts)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _number(data: Metrics, key: str, form: str) -> str:
    return format(data[key], form) if key in data else ""


def _header(data: Metrics, step: int, total_steps: int, remaining: float) -> RenderableType:
    """Returns the title line and the table of policies."""
    seconds = _number(data, "timing_s/step", ".1f")
    title = [f"step {step} of {total_steps}", f"{seconds} s" if seconds else "", f"stage {data.get('rsim/stage', 0):g}"]
    title.append(f"about {timedelta(seconds=round(remaining))} left" if remaining else "")
    table = _table("", "weight", *ROLE_COLUMNS)
    for policy in POLICIES:
        if f"{policy}/weight" in data:
            cells = [_number(data, f"{policy}/{key}", form) for key, form in ROLE_COLUMNS.values()]
            table.add_row(policy, _number(data, f"{policy}/weight", ".2f"), *cells)
    return Group(Rule(" · ".join(filter(None, title)), align="left"), table, Text(""))


def _strategies(data: Metrics) -> Table:
    """Returns the table of strategies."""
    table = _table("strategy", "share", "", "turn 1", "win", "lift", "obeys")
    table.columns[2].justify = "left"  # the bar, which has no title
    table.columns[2].min_width = BAR_WIDTH
    for strategy in STRATEGIES:
        key = f"strategy/{strategy.name}"
        cells = [f"{key}/turn/1", f"{key}/win_rate"]
        signed = [f"{key}/lift", f"{key}/obedience"]
        table.add_row(
            strategy.title,
            _number(data, key, ".0%"),
            "█" * round(BAR_WIDTH * data.get(key, 0.0)),
            *[_number(data, cell, ".0%") for cell in cells],
            *[_number(data, cell, "+.2f") for cell in signed],
        )
    return table


def _overview(data: Metrics) -> Table:
    """Returns accuracy, turns, memory, the most frequent ends of episodes and the longest phases."""
    table = Table.grid(padding=(0, 1))
    table.add_row("accuracy", _number(data, "reasoner/acc", ".1%"))
    spread = f"{_number(data, 'rsim/turns/min', '.0f')} to {_number(data, 'rsim/turns/max', '.0f')}"
    table.add_row("turns", f"{_number(data, 'rsim/turns', '.1f')} ({spread})")
    table.add_row("step", f"{_number(data, 'rsim/step_tokens', '.0f')} tokens")
    table.add_row("cut off", _number(data, "rsim/truncated", ".0%"))
    table.add_row("failed", _number(data, "rsim/failed", ".0f"))
    for name, key in (("memory", "cpu_memory_used_gb"), ("GPU memory", "max_memory_allocated_gb")):
        peak = max(data.get(f"{policy}/perf/{key}", 0.0) for policy in POLICIES)
        if peak:  # verl measures it during an update only, and has no GPU memory on a CPU
            table.add_row(name, f"{peak:.1f} GiB")
    stops = {key: value for key, value in data.items() if value}  # ends that did not occur are not shown
    for name, share in _largest(stops, "rsim/stop/", 3):
        table.add_row(f"  {name}", f"{share:.0%}")
    phases = {key: value for key, value in data.items() if key != "timing_s/step"}  # the title shows the whole step
    for name, seconds in _largest(phases, "timing_s/", 5):
        table.add_row(name, f"{seconds:.1f} s")
    return table


def _largest(data: Metrics, prefix: str, count: int) -> list[tuple[str, float]]:
    """Returns the ``count`` largest metrics with a prefix, without it, in descending order."""
    values = [(key.removeprefix(prefix), value) for key, value in data.items() if key.startswith(prefix)]
    return sorted(values, key=lambda item: -item[1])[:count]


def _alarms(data: Metrics) -> Text:
    """Returns the line with the alarms that are on."""
    on = sorted(key.removeprefix("alarm/") for key, value in data.items() if key.startswith("alarm/") and value)
    return Text(f"ALARM {', '.join(on)}", style="bold red") if on else Text("no alarm", style="dim")


def _validation(data: Metrics, step: int) -> Text:
    """Returns the line that sums up a validation."""
    shown = {"accuracy": ("reasoner/acc", ".1%"), "planner's reward": ("planner/reward", ".3f"),
             "turns": ("rsim/turns", ".1f"), "strategy entropy": ("strategy/entropy", ".2f")}  # fmt: skip
    parts = [f"{name} {_number(data, f'val-{key}', form)}" for name, (key, form) in shown.items()]
    return Text(f"validation at step {step}: {', '.join(parts)}", style="bold")
