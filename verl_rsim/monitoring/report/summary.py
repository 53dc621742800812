"""Prints what a run taught: accuracy before and after, the planner's choices, the curve of training, what is next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report.report_data import EpisodeGroup, ReportData
from verl_rsim.monitoring.report.stats import ShareEstimate, Tally

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60
"""A curve of more steps is drawn as means over neighbouring steps."""


def print_summary(data: ReportData, console: Console) -> None:
    """Prints accuracy, choices, the curve of training and the longest phases; leaves out what the run does not have."""
    groups = data.compared_groups()
    if groups:
        console.print(_before_and_after(*groups))
    training = _training(data)
    if training:
        console.print(_choices(training))
    points = data.curve("reasoner/acc", "training", "reasoner").points
    if len(points) > 1:
        (first, start), (last, end) = points[0], points[-1]
        bars = sparkline([accuracy for _, accuracy in points])
        ends = f"{start:.0%} in step {first:.0f}, {end:.0%} in {last:.0f}"
        console.print(f"Accuracy while training  {bars}  {ends}", highlight=False, soft_wrap=True)
    phases = data.phases()[:4]
    if phases:
        longest = ", ".join(f"{phase.name} {phase.seconds:.1f}" for phase in phases)
        console.print(f"Seconds a step, longest phases: {longest}", highlight=False, soft_wrap=True)


def sparkline(values: Sequence[float]) -> str:
    """Draws values in [0, 1] as one line of bars, at most :data:`CURVE_WIDTH` of them."""
    size = -(-len(values) // CURVE_WIDTH)
    bars = ""
    for first in range(0, len(values), size):
        value = fmean(values[first : first + size])
        bars += BARS[min(int(value * len(BARS)), len(BARS) - 1)]
    return bars


def _before_and_after(first: EpisodeGroup, last: EpisodeGroup) -> Table:
    """Returns a table of two groups of episodes: accuracy with its interval, rewards, turns."""
    name = f"{first.tally.episodes} {first.kind} episodes"
    table = Table(name, _heading(first), _heading(last), title="Before and after", title_justify="left")
    table.add_row(
        "accuracy (95 % interval)", _with_interval(first.tally.accuracy()), _with_interval(last.tally.accuracy())
    )
    rows = {
        "planner's reward": "planner_reward",
        "reasoner's tokens an episode": "tokens",
    }
    for label, field in rows.items():
        values = [group.tally.mean(getattr(group.tally, field)) for group in (first, last)]
        table.add_row(label, *(f"{value:.2f}" for value in values))
    turns = [group.tally.mean(group.tally.turns.total()) for group in (first, last)]
    table.add_row("turns an episode", *(f"{value:.2f}" for value in turns))
    return table


def _heading(group: EpisodeGroup) -> str:
    return group.condition or f"step {group.step}"


def _with_interval(estimate: ShareEstimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:.0%} ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def _training(data: ReportData) -> list[tuple[int, Tally]]:
    """Returns the counts of each training step, in ascending order."""
    groups = [group for group in data.groups.values() if group.kind == "train"]
    return [(group.step, group.tally) for group in sorted(groups, key=lambda group: group.step)]


def _choices(training: Sequence[tuple[int, Tally]]) -> Table:
    """Returns a table of the planner's choices in the first and the last third of training, by their last share."""
    third = max(1, len(training) // 3)
    table = Table(
        "strategy", _span(training[:third]), _span(training[-third:]), "right with it",
        title="What the planner chose (share of the turns, while training)", title_justify="left",
    )  # fmt: skip
    before, after = _turns(training[:third]), _turns(training[-third:])
    used, won = [0.0] * len(STRATEGIES), [0.0] * len(STRATEGIES)
    for _, tally in training:
        for index in range(len(STRATEGIES)):
            used[index] += tally.used[index]
            won[index] += tally.won[index]
    for index in sorted(range(len(STRATEGIES)), key=lambda index: -after[index]):
        right = f"{won[index] / used[index]:.0%} of {used[index]:.0f}" if used[index] else "-"
        table.add_row(STRATEGIES[index].title, f"{before[index]:.0%}", f"{after[index]:.0%}", right)
    return table


def _span(steps: Sequence[tuple[int, Tally]]) -> str:
    first, last = steps[0][0], steps[-1][0]
    return f"step {first}" if first == last else f"steps {first} to {last}"


def _turns(steps: Sequence[tuple[int, Tally]]) -> list[float]:
    """Returns each strategy's share of the turns of some steps."""
    turns = [sum(tally.turns[index] for _, tally in steps) for index in range(len(STRATEGIES))]
    return [count / (sum(turns) or 1) for count in turns]


def print_next(run_dir: Path, data: ReportData, home: Path, console: Console) -> None:
    """Prints where report and models are, and commands to try.

    Args:
        run_dir: folder of the run.
        data: what the report shows.
        home: ``$RSIM_HOME``, where exported models and datasets are searched for.
        console: console to print to.
    """
    run, exported = shlex.quote(str(run_dir)), home / "exported" / run_dir.resolve().name
    commands = [f"replay {run} --step {max((group.step for group in data.groups.values()), default=0)}"]
    report = run_dir / "report.html"
    if report.is_file():
        _print_line(console, f"Report: {report}")
    else:
        commands.append(f"report {run}")
    if exported.is_dir():
        planner, reasoner = exported / "planner", exported / "reasoner"
        _print_line(console, f"Models: {planner} and {reasoner}")
        models = f"--planner {shlex.quote(str(planner))} --reasoner {shlex.quote(str(reasoner))}"
        commands.append(f"serve {models}")
        for source in sorted(source for source in data.sources if source and (home / "data" / source).is_dir()):
            commands.append(f"eval {models} --data {source}")
    else:
        commands.append(f"export {run}")
    _print_line(console, "Try next:")
    for command in commands:
        _print_line(console, f"  verl-rsim {command}")


def _print_line(console: Console, line: str) -> None:
    """Prints a line that can be copied: without colours, and not wrapped by the terminal's width."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)
