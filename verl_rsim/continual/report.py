"""Writes a chain's forgetting report to the terminal, as Markdown and as JSON, from its evaluation's records alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from verl_rsim.continual.chain import Chain
from verl_rsim.continual.forgetting import Change, ForgettingReport, LearnedDataset, Measure, Scores, analyse
from verl_rsim.core.controls import PLANNER
from verl_rsim.evaluation.matrix import CONTROL_CELL
from verl_rsim.evaluation.records import read_records
from verl_rsim.evaluation.reports.summary import group, scores
from verl_rsim.evaluation.reports.tables import TextTable, difference_cells, interval, p_value
from verl_rsim.evaluation.reports.write import to_json
from verl_rsim.evaluation.statistics import bootstrap
from verl_rsim.utils.artifact_folders import write_atomically

REASONER = "reasoner"
"""Name of the reasoner in the chain's evaluation."""
MEANINGS = {
    "average accuracy": "mean over all tasks learned",
    "backward transfer": "below 0: forgotten",
    "forward transfer": "above 0: earlier tasks helped",
    "forgetting": "above 0: forgotten",
}
"""Explanation of each measure, as the report shows it."""


def evaluation_datasets(chain: Chain) -> tuple[LearnedDataset, ...]:
    """Returns all datasets of a chain's evaluation, tasks first."""
    datasets = [LearnedDataset(name, 0) for name in chain.learned]
    datasets += [LearnedDataset(stage.name, number) for number, stage in enumerate(chain.stages, 1)]
    datasets += [LearnedDataset(name, None) for name in chain.datasets]
    return tuple(datasets)


def forgetting_report(chain: Chain, states: Sequence[str], evaluation: Path, seed: int) -> ForgettingReport:
    """Computes the report of the states that have been evaluated so far.

    Args:
        chain: the chain.
        states: names of the states, the newest last.
        evaluation: folder of the chain's transfer.
        seed: seed of the intervals.
    """
    datasets = evaluation_datasets(chain)
    scores_by_cell: dict[tuple[str, str], Scores] = {}
    for dataset in datasets:
        for state in states:
            records = group(read_records(evaluation / REASONER / dataset.name / state))
            scores_by_cell[state, dataset.name] = scores(records[PLANNER])
    return analyse(states, datasets, scores_by_cell, seed)


def forgetting_tables(report: ForgettingReport, controls: Sequence[tuple[str, ...]] = ()) -> list[TextTable]:
    """Returns all tables of a report; comparisons appear after the first stage.

    Args:
        report: the report.
        controls: additional rows of the accuracy table: name and cells.
    """
    header = ("state", *(dataset.name for dataset in report.datasets))
    names = (report.states[0], *(f"after {state}" for state in report.states[1:]))
    rows = [(name, *map(interval, line)) for name, line in zip(names, report.accuracy, strict=True)]
    tables = [TextTable("Accuracy, %, with 95 % confidence intervals", header, (*controls, *rows))]
    defined = [measure for measure in report.measures if not math.isnan(measure.estimate.mean)]
    if len(report.states) > 1:
        tables.append(_measure_table(defined))
    since_before = f"{names[-1]} minus before the chain, on the same questions"
    since_learned = f"{names[-1]} minus right after the task was learned, on the same questions"
    for title, changes in ((since_before, report.since_before), (since_learned, report.since_learned)):
        if changes:
            tables.append(_change_table(title[0].upper() + title[1:], changes))
    return tables


def _measure_table(measures: Sequence[Measure]) -> TextTable:
    rows = [
        (m.name, interval(m.estimate, signed=m.name != "average accuracy"), ", ".join(m.tasks), MEANINGS[m.name])
        for m in measures
    ]
    return TextTable("The chain so far, points", ("measure", "value", "tasks", "meaning"), tuple(rows))


def _change_table(title: str, changes: Sequence[Change]) -> TextTable:
    rows = []
    for change in changes:
        estimate, balance, p, test = difference_cells(change.difference)
        questions = str(change.difference.questions)
        rows.append((change.dataset, questions, estimate, balance, p, p_value(change.p_holm), test))
    header = ("dataset", "n", "difference, points", "+/-", "p", "p (Holm)", "test")
    return TextTable(title, header, tuple(rows))


def _control_rows(chain: Chain, evaluation: Path, seed: int) -> list[tuple[str, ...]]:
    """Returns the accuracy of each control; a control has no planner and therefore no states."""
    datasets = evaluation_datasets(chain)
    cells: dict[str, dict[str, str]] = {}
    for dataset in datasets:
        for name, records in group(read_records(evaluation / REASONER / dataset.name / CONTROL_CELL)).items():
            values = [sum(samples) / len(samples) for samples in scores(records).values()]
            cells.setdefault(name, {})[dataset.name] = interval(bootstrap(values, seed))
    rows = []
    for name, row in cells.items():
        rows.append((f"({name})", *(row.get(dataset.name, "-") for dataset in datasets)))
    return rows


def write_forgetting_report(
    chain: Chain, states: Sequence[str], folder: Path, seed: int, console: Console
) -> ForgettingReport:
    """Writes ``report.md`` and ``report.json`` into a chain's folder, prints the tables, and returns the report."""
    evaluation = folder / "evaluation"
    report = forgetting_report(chain, states, evaluation, seed)
    tables = forgetting_tables(report, _control_rows(chain, evaluation, seed))
    title = f"# Forgetting report: {' → '.join(chain.tasks)}"
    remaining = len(chain.states) - len(states)
    notes = []
    if remaining:
        notes = [f"Unfinished: {remaining} of {len(chain.stages)} stages remain. Run the same command to continue.", ""]
    write_atomically(folder / "report.md", "\n".join([title, "", *notes, *(grid.markdown() for grid in tables)]))
    write_atomically(folder / "report.json", to_json(dataclasses.asdict(report)))
    for grid in tables:
        grid.show(console)
    console.print(f"Written: {folder}/report.md, report.json", highlight=False)
    return report
