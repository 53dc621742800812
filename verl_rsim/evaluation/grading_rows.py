"""Reads the rows that ``verl-rsim grade`` grades: own files, verl's rollout dumps and logged episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_rsim.data.ground_truths import TruthRules
from verl_rsim.data.messages import FormError
from verl_rsim.data.rows import iter_rows
from verl_rsim.monitoring.episode_log import read_log
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.utils.errors import DataError

TEXT_KEYS = ("text", "output", "response", "completion", "prediction")
"""Names of the column that holds the text to grade; ``output`` is that of verl's rollout dumps."""
TRUTH_KEYS = ("truth", "ground_truth", "gts", "gold", "target")
"""Names of the column that holds the ground truth; ``gts`` is that of verl's rollout dumps."""


@dataclass(frozen=True, slots=True)
class GradingRow:
    """Holds a text to grade.

    Attributes:
        place: file and line or row.
        text, truth: the text and its ground truth.
        data_source: dataset, or the type of the answer; both choose the type.
        ability: "code" if the text is a program.
        right: a person's judgement; None if the row has none.
        columns: the row as it was read.
    """

    place: str
    text: str
    truth: str
    data_source: str
    ability: str | None
    right: bool | None
    columns: Mapping[str, Any]


def read_grading_rows(path: Path, types: AnswerTypes, default: AnswerType) -> tuple[list[GradingRow], list[str]]:
    """Returns the rows that can be graded, and a message for each of the others.

    Args:
        path: a .jsonl, .json, .csv or .parquet file, a file of episodes, or the folder of a run.
        types: types of the data sources' answers.
        default: type of rows that have neither ``type`` nor ``data_source``.

    Raises:
        DataError: the file cannot be read.
    """
    rules, rows, problems = TruthRules(types), [], []
    for place, columns in _placed_columns(path):
        try:
            rows.append(_row(place, columns, rules, default))
        except FormError as error:
            problems.append(f"{place}: {error.place}: {error}")
    return rows, problems


def _placed_columns(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.is_dir() or path.suffix == ".gz":
        for number, episode in enumerate(read_log(path), start=1):
            steps = "\n\n".join(turn.text for turn in episode.turns)
            named = {"text": steps, "truth": episode.truth, "data_source": episode.data_source}
            yield f"{path}, episode {number}", {**named, "step": episode.step, "question_id": episode.question_id}
        return
    rows = list(iter_rows(path))
    lines = _line_numbers(path)
    for number, columns in enumerate(rows):
        yield f"{path}, line {lines[number]}" if len(lines) == len(rows) else f"{path}, row {number}", columns


def _line_numbers(path: Path) -> list[int]:
    """Returns the numbers of a JSONL file's lines that hold a row; an empty list for other files."""
    if path.suffix != ".jsonl":
        return []
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [number for number, line in enumerate(lines, start=1) if line.strip()]


def _row(place: str, columns: Mapping[str, Any], rules: TruthRules, default: AnswerType) -> GradingRow:
    """Returns a row in the names of this module; raises :class:`FormError` with the column as its place."""
    text_key, text = _first(columns, TEXT_KEYS)
    if not isinstance(text, str):
        raise FormError("must be text; write the whole answer of the model there", text_key)
    right = columns.get("right")
    if right is not None and not isinstance(right, bool):
        raise FormError(f"must be true or false, not {right!r:.40}; or leave it out", "right")
    ability = columns.get("ability")
    source = _source(columns, default)
    if "reward_model" in columns and isinstance(columns["reward_model"], Mapping):
        columns = {**columns["reward_model"], **columns}
    truth_key, value = _first(columns, TRUTH_KEYS)
    try:
        truth = rules.read(value, source, ability)
    except FormError as error:
        raise FormError(f"{error}", truth_key) from None
    return GradingRow(place, text, truth, source, ability, right, columns)


def _first(columns: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """Returns the first of some columns that a row has, and its value."""
    for name in names:
        if columns.get(name) is not None:
            return name, columns[name]
    raise FormError(f"is missing; give the row one of {', '.join(names)}", names[0])


def _source(columns: Mapping[str, Any], default: AnswerType) -> str:
    """Returns what chooses the type of a row's answer: ``type`` before ``data_source``."""
    kind = columns.get("type") or columns.get("answer_type")
    if kind is None:
        source = columns.get("data_source")
        return str(source) if source else default
    try:
        return AnswerType(kind)
    except ValueError:
        raise FormError(f"must be one of {', '.join(AnswerType)}, not {kind!r:.40}", "type") from None


def require_rows(path: Path, rows: list[GradingRow], problems: list[str]) -> None:
    """Raises :class:`DataError` if a file has no row that can be graded."""
    if not rows:
        raise DataError(problems[0] if problems else f"{path}: has no rows; give it one JSON object a line")
