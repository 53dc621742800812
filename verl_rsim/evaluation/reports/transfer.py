"""Writes the tables and the heat map of a transfer from the records in its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from verl_rsim.core.controls import ALONE, PLANNER
from verl_rsim.evaluation.manifest import read_manifest
from verl_rsim.evaluation.matrix import CONTROL_CELL
from verl_rsim.evaluation.records import Record, read_records
from verl_rsim.evaluation.reports.heatmap import HeatMapCell, heat_map_svg
from verl_rsim.evaluation.reports.summary import Summary, group, scores, summarize
from verl_rsim.evaluation.reports.tables import TextTable, interval, p_value, to_csv
from verl_rsim.evaluation.reports.write import to_json
from verl_rsim.evaluation.statistics import Difference, paired
from verl_rsim.evaluation.transfer import ERRORS
from verl_rsim.utils.artifact_folders import write_atomically


@dataclass(frozen=True, slots=True)
class TransferResult:
    """Holds the result of one row (a control or planner) in one column (a reasoner on a dataset) of the table.

    Attributes:
        row: name of a control or a planner.
        reasoner, dataset: names of the column.
        summary: the results; None if there is no answer yet.
        gain: gain over the reasoner alone on the same questions; None for itself, or if it was not played.
        best_control: for a planner, the most accurate control of the column; "" for a control.
        over_best: gain of the planner over ``best_control`` on the same questions.
        complete: True if all answers are recorded.
        error: error of the cell in the last start; "" if there was none.
    """

    row: str
    reasoner: str
    dataset: str
    summary: Summary | None
    gain: Difference | None
    best_control: str
    over_best: Difference | None
    complete: bool
    error: str


def transfer_results(folder: Path) -> list[TransferResult]:
    """Returns all results of a transfer, column by column.

    Raises:
        DataError: the folder holds no transfer.
    """
    manifest = read_manifest(folder, "transfer")
    requested, seed = manifest["asked"], manifest["fixed"]["draw"]["seed"]
    errors = json.loads((folder / ERRORS).read_text()) if (folder / ERRORS).is_file() else {}
    results: list[TransferResult] = []
    for reasoner in requested["reasoners"]:
        for dataset in requested["datasets"]:
            column = _Column(folder, reasoner, dataset, seed, errors)
            results += column.results(requested["controls"], requested["planners"])
    return results


class _Column:
    """Computes the results of one reasoner on one dataset."""

    def __init__(self, folder: Path, reasoner: str, dataset: str, seed: int, errors: Mapping[str, str]):
        self.folder, self.reasoner, self.dataset, self.seed = folder / reasoner / dataset, reasoner, dataset, seed
        self.errors = errors
        self.controls = group(read_records(self.folder / CONTROL_CELL))

    def results(self, controls: Sequence[str], planners: Iterable[str]) -> list[TransferResult]:
        """Returns the results of controls and planners, in this order."""
        of_controls = [self._result(name, CONTROL_CELL, self.controls.get(name, []), "") for name in controls]
        best_control = _most_accurate(of_controls)
        of_planners = []
        for name in planners:
            records = group(read_records(self.folder / name)).get(PLANNER, [])
            of_planners.append(self._result(name, name, records, best_control))
        return of_controls + of_planners

    def _result(self, row: str, cell: str, records: Sequence[Record], best_control: str) -> TransferResult:
        error = self.errors.get(f"{self.reasoner}/{self.dataset}/{cell}", "")
        result = TransferResult(row, self.reasoner, self.dataset, None, None, best_control, None, False, error)
        if not records:
            return result
        requested = read_manifest(self.folder / cell, "eval")["asked"]
        return dataclasses.replace(
            result,
            summary=summarize(row, records, self.seed),
            gain=None if row == ALONE else self._gain(records, ALONE),
            over_best=self._gain(records, best_control),
            complete=len(records) >= len(requested["questions"]) * requested["samples"],
        )

    def _gain(self, records: Sequence[Record], control: str) -> Difference | None:
        control_records = self.controls.get(control)
        return paired(scores(records), scores(control_records), self.seed) if control_records else None


def _most_accurate(controls: Sequence[TransferResult]) -> str:
    """Returns the name of the most accurate control, or "" if there is none; controls without answers come last."""
    means = {result.row: result.summary.accuracy.mean if result.summary else -1.0 for result in controls}
    return max(means, key=means.__getitem__, default="")


def write_transfer_report(folder: Path, console: Console) -> list[TransferResult]:
    """Writes ``table.md``, ``table.csv``, ``table.json`` and ``heatmap.svg``, and prints the tables.

    Returns:
        The results, column by column.

    Raises:
        DataError: the folder holds no transfer.
    """
    results = transfer_results(folder)
    planners = [result for result in results if result.best_control]  # none if no control was asked for
    tables = [_table("Accuracy (mean@k), %", results, _accuracy)]
    if any(result.gain for result in results):
        tables.append(_table("Gain over the reasoner alone, points", results, lambda result: _difference(result.gain)))
    if any(result.over_best for result in planners):
        title = "Gain of the planners over each column's best control, points"
        tables.append(_table(title, planners, lambda result: _difference(result.over_best, result.best_control)))
    failed = {result.error: None for result in results if result.error}
    notes = [f"Failed: {message.strip().splitlines()[-1]}" for message in failed]
    write_atomically(folder / "table.md", "\n".join([*(table.markdown() for table in tables), *notes]))
    write_atomically(folder / "table.csv", _csv(results))
    write_atomically(folder / "table.json", to_json([dataclasses.asdict(result) for result in results]))
    write_atomically(
        folder / "heatmap.svg", heat_map_svg([_heat_map_cell(result) for result in results], "Accuracy, %")
    )
    for table in tables:
        table.show(console)
    for note in notes:
        console.print(note, style="red", highlight=False, markup=False)
    console.print(f"Written: {folder}/table.md, table.csv, table.json, heatmap.svg", highlight=False)
    return results


def _table(title: str, results: Sequence[TransferResult], cell: Callable[[TransferResult], str]) -> TextTable:
    columns = list(dict.fromkeys((result.reasoner, result.dataset) for result in results))
    by_place = {(result.row, result.reasoner, result.dataset): result for result in results}

    def text(result: TransferResult) -> str:
        if result.summary is None:
            return "failed" if result.error else "-"
        return cell(result)

    rows = []
    for row in dict.fromkeys(result.row for result in results):
        rows.append((row, *(text(by_place[(row, *column)]) for column in columns)))
    header = ("", *(" / ".join(column) for column in columns))
    return TextTable(f"{title}, with 95 % confidence intervals", header, tuple(rows))


def _accuracy(result: TransferResult) -> str:
    accuracy = interval(result.summary.accuracy) if result.summary else "-"
    return accuracy if result.complete else f"{accuracy} (unfinished)"


def _difference(gain: Difference | None, control: str = "") -> str:
    return f"{interval(gain.estimate, signed=True)} p={p_value(gain.p)} {control}".strip() if gain else "-"


def _csv(results: Sequence[TransferResult]) -> str:
    header = "reasoner dataset row questions samples accuracy low high gain gain_low gain_high p"
    header += " best_control over_best over_best_low over_best_high over_best_p complete error"
    rows = []
    for result in results:
        differences = (*_difference_values(result.gain), result.best_control, *_difference_values(result.over_best))
        row = (result.reasoner, result.dataset, result.row, *_summary_values(result.summary), *differences)
        rows.append((*row, result.complete, result.error))
    return to_csv(header.split(), rows)


def _summary_values(summary: Summary | None) -> tuple[object, ...]:
    if summary is None:
        return ("",) * 5
    accuracy = summary.accuracy
    return summary.questions, summary.samples, accuracy.mean, accuracy.low, accuracy.high


def _difference_values(difference: Difference | None) -> tuple[object, ...]:
    if difference is None:
        return ("",) * 4
    estimate = difference.estimate
    return estimate.mean, estimate.low, estimate.high, difference.p


def _heat_map_cell(result: TransferResult) -> HeatMapCell:
    summary = result.summary
    return HeatMapCell(
        row=result.row,
        column=f"{result.reasoner} / {result.dataset}",
        value=summary.accuracy.mean if summary else None,
        low=summary.accuracy.low if summary else None,
        high=summary.accuracy.high if summary else None,
        gain=result.gain.estimate.mean if result.gain else None,
    )
