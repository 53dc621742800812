"""A chain's report in the terminal, as Markdown and as JSON, drawn from the records of its evaluation alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from verl_rsim.continual.chain import Chain
from verl_rsim.continual.forgetting import Change, Forgetting, LearnedDataset, Measure, analyse
from verl_rsim.core.controls import PLANNER
from verl_rsim.evaluation.matrix import CONTROL_CELL
from verl_rsim.evaluation.records import read_records
from verl_rsim.evaluation.reports.summary import group, scores
from verl_rsim.evaluation.reports.tables import Grid, difference_cells, interval, p_value
from verl_rsim.evaluation.reports.write import to_json
from verl_rsim.evaluation.statistics import bootstrap
from verl_rsim.utils.artifact_folders import write_atomically

REASONER = "reasoner"
"""The reasoner's name in the chain's evaluation."""
MEANINGS = {
    "average accuracy": "of all tasks learned",
    "backward transfer": "below 0: forgotten",
    "forward transfer": "above 0: of use later",
    "forgetting": "above 0: forgotten",
}


def columns(chain: Chain) -> tuple[LearnedDataset, ...]:
    """All datasets of a chain's evaluation, tasks first."""
    names = [*(LearnedDataset(name, 0) for name in chain.learned)]
    names += [LearnedDataset(stage.name, number) for number, stage in enumerate(chain.stages, 1)]
    return (*names, *(LearnedDataset(name, None) for name in chain.datasets))


def forgetting_report(chain: Chain, states: Sequence[str], evaluation: Path, seed: int) -> Forgetting:
    """The report of the states played so far.

    Args:
        evaluation: folder of the chain's transfer.
        seed: of the intervals.
    """
    datasets, found = columns(chain), {}
    for dataset in datasets:
        for state in states:
            records = group(read_records(evaluation / REASONER / dataset.name / state))
            found[state, dataset.name] = scores(records[PLANNER])
    return analyse(states, datasets, found, seed)


def grids(report: Forgetting, controls: Sequence[tuple[str, ...]] = ()) -> list[Grid]:
    """All tables; comparisons appear after the first stage.

    Args:
        controls: further rows of the matrix: name and cells.
    """
    header = ("state", *(dataset.name for dataset in report.datasets))
    names = (report.states[0], *(f"after {state}" for state in report.states[1:]))
    rows = [(name, *map(interval, line)) for name, line in zip(names, report.accuracy, strict=True)]
    tables = [Grid("Accuracy, %, with 95 % confidence intervals", header, (*controls, *rows))]
    defined = [measure for measure in report.measures if not math.isnan(measure.estimate.mean)]
    if len(report.states) > 1:
        tables.append(_measures(defined))
    since_before = f"{names[-1]} minus before the chain, on the same questions"
    since_learned = f"{names[-1]} minus right after the task was learned, on the same questions"
    for title, changes in ((since_before, report.since_before), (since_learned, report.since_learned)):
        if changes:
            tables.append(_changes(title[0].upper() + title[1:], changes))
    return tables


def _measures(measures: Sequence[Measure]) -> Grid:
    rows = [
        (m.name, interval(m.estimate, signed=m.name != "average accuracy"), ", ".join(m.tasks), MEANINGS[m.name])
        for m in measures
    ]
    return Grid("The chain so far, points", ("measure", "value", "tasks", "meaning"), tuple(rows))


def _changes(title: str, changes: Sequence[Change]) -> Grid:
    rows = []
    for change in changes:
        estimate, balance, p, test = difference_cells(change.difference)
        questions = str(change.difference.questions)
        rows.append((change.dataset, questions, estimate, balance, p, p_value(change.p_holm), test))
    header = ("dataset", "n", "difference, points", "+/-", "p", "p (Holm)", "test")
    return Grid(title, header, tuple(rows))


def _control_rows(chain: Chain, evaluation: Path, seed: int) -> list[tuple[str, ...]]:
    """The accuracy of each control, which takes no planner and so has no states."""
    cells: dict[str, dict[str, str]] = {}
    for dataset in columns(chain):
        for name, records in group(read_records(evaluation / REASONER / dataset.name / CONTROL_CELL)).items():
            values = [sum(samples) / len(samples) for samples in scores(records).values()]
            cells.setdefault(name, {})[dataset.name] = interval(bootstrap(values, seed))
    return [(f"({name})", *(row.get(dataset.name, "-") for dataset in columns(chain))) for name, row in cells.items()]


def write_forgetting_report(
    chain: Chain, states: Sequence[str], folder: Path, seed: int, console: Console
) -> Forgetting:
    """Write ``report.md`` and ``report.json`` into a chain's folder, and print the tables."""
    evaluation = folder / "evaluation"
    report = forgetting_report(chain, states, evaluation, seed)
    tables = grids(report, _control_rows(chain, evaluation, seed))
    title = f"# Forgetting report: {' → '.join(chain.tasks)}"
    left = len(chain.states) - len(states)
    notes = [f"Unfinished: {left} of {len(chain.stages)} stages to go. The same command goes on.", ""] if left else []
    write_atomically(folder / "report.md", "\n".join([title, "", *notes, *(grid.markdown() for grid in tables)]))
    write_atomically(folder / "report.json", to_json(dataclasses.asdict(report)))
    for grid in tables:
        grid.show(console)
    console.print(f"Written: {folder}/report.md, report.json", highlight=False)
    return report
