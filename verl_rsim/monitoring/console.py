"""One screen a step, in the place of verl's one long line: what both policies did, and whether something is wrong.

Shows what verl's loggers get, nothing else; a metric that a step does not have leaves its place empty.
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
BAR = 8
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
Metrics = Mapping[str, float]


class StepConsole:
    """A logger of verl's :class:`Tracking` that prints a step as one screen.

    Args:
        total_steps: of the training.
        console: where to print; stdout if None, 100 columns wide, since Ray's log has no width of its own.
    """

    def __init__(self, total_steps: int, console: Console | None = None):
        self.total_steps = total_steps
        self.console = console or Console(width=WIDTH)
        self._seconds: list[float] = []  # of the steps so far

    def log(self, data: Metrics, step: int) -> None:
        """Print a step; ``data`` is what every other logger gets."""
        if "timing_s/step" in data:
            self._seconds.append(data["timing_s/step"])
        left = fmean(self._seconds) * (self.total_steps - step) if self._seconds else 0.0
        self.console.print(render(data, step, self.total_steps, left))


class SaidBefore(dict[str, float]):
    """A validation's metrics; verl's loop also prints the whole dictionary, of which this class leaves a reference."""

    def __repr__(self) -> str:
        return f"{len(self)} values, in the loggers"


def render(data: Metrics, step: int, total_steps: int, left: float) -> RenderableType:
    """The screen of a step; a validation alone gives one line. ``left``: seconds of training to come."""
    parts: list[RenderableType] = []
    if "rsim/turns" in data:
        halves = Table.grid(padding=(0, 3))
        halves.add_row(_strategies(data), _side(data))
        parts += [_title(data, step, total_steps, left), halves, _alarms(data)]
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


def _title(data: Metrics, step: int, total_steps: int, left: float) -> RenderableType:
    seconds = _number(data, "timing_s/step", ".1f")
    said = [f"step {step} of {total_steps}", f"{seconds} s" if seconds else "", f"stage {data.get('rsim/stage', 0):g}"]
    said.append(f"about {timedelta(seconds=round(left))} left" if left else "")
    table = _table("", "weight", *ROLE_COLUMNS)
    for role in (name for name in POLICIES if f"{name}/weight" in data):
        cells = [_number(data, f"{role}/{key}", form) for key, form in ROLE_COLUMNS.values()]
        table.add_row(role, _number(data, f"{role}/weight", ".2f"), *cells)
    return Group(Rule(" · ".join(filter(None, said)), align="left"), table, Text(""))


def _strategies(data: Metrics) -> Table:
    table = _table("strategy", "share", "", "turn 1", "win", "lift", "obeys")
    table.columns[2].justify = "left"  # the bar
    table.columns[2].min_width = BAR
    for strategy in STRATEGIES:
        key = f"strategy/{strategy.name}"
        cells = [f"{key}/turn/1", f"{key}/win_rate"]
        signed = [f"{key}/lift", f"{key}/obedience"]
        table.add_row(
            strategy.title,
            _number(data, key, ".0%"),
            "█" * round(BAR * data.get(key, 0.0)),
            *[_number(data, cell, ".0%") for cell in cells],
            *[_number(data, cell, "+.2f") for cell in signed],
        )
    return table


def _side(data: Metrics) -> Table:
    """Accuracy, turns, how episodes ended, time."""
    table = Table.grid(padding=(0, 1))
    table.add_row("accuracy", _number(data, "reasoner/acc", ".1%"))
    spread = f"{_number(data, 'rsim/turns/min', '.0f')} to {_number(data, 'rsim/turns/max', '.0f')}"
    table.add_row("turns", f"{_number(data, 'rsim/turns', '.1f')} ({spread})")
    table.add_row("step", f"{_number(data, 'rsim/step_tokens', '.0f')} tokens")
    table.add_row("cut off", _number(data, "rsim/truncated", ".0%"))
    table.add_row("failed", _number(data, "rsim/failed", ".0f"))
    for name, key in (("memory", "cpu_memory_used_gb"), ("GPU memory", "max_memory_allocated_gb")):
        if most := max(data.get(f"{role}/perf/{key}", 0.0) for role in POLICIES):  # verl's, where there was an update
            table.add_row(name, f"{most:.1f} GiB")
    stops = {key.rsplit("/", 1)[1]: value for key, value in data.items() if key.startswith("rsim/stop/") and value}
    for name, share in sorted(stops.items(), key=lambda item: -item[1])[:3]:
        table.add_row(f"  {name}", f"{share:.0%}")
    times = {key.removeprefix("timing_s/"): value for key, value in data.items() if key.startswith("timing_s/")}
    times.pop("step", None)  # the title has it
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[:5]:
        table.add_row(name, f"{seconds:.1f} s")
    return table


def _alarms(data: Metrics) -> Text:
    on = sorted(key.removeprefix("alarm/") for key, value in data.items() if key.startswith("alarm/") and value)
    return Text(f"ALARM {', '.join(on)}", style="bold red") if on else Text("no alarm", style="dim")


def _validation(data: Metrics, step: int) -> Text:
    shown = {"accuracy": ("reasoner/acc", ".1%"), "planner's reward": ("planner/reward", ".3f"),
             "turns": ("rsim/turns", ".1f"), "strategy entropy": ("strategy/entropy", ".2f")}  # fmt: skip
    parts = [f"{name} {_number(data, f'val-{key}', form)}" for name, (key, form) in shown.items()]
    return Text(f"validation at step {step}: {', '.join(parts)}", style="bold")
