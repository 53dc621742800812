"""Reads rows in verl's format: the one reader of training, doctor, evaluation and data preparation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_rsim.data.ground_truths import TruthRules
from verl_rsim.data.messages import LIST, Chat, FormError, read_chat

BAD_ROWS = "bad_rows.jsonl"
"""Name of the list of the rows that are left out, in the folder of a run or of prepared data."""
KINDS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class BadRow:
    """Describes a row that cannot be played or scored.

    Attributes:
        file: file of the row.
        number: the row's number in its file, counted from 0.
        column: column of the value, with the place in it.
        value: what stands there, shortened.
        reason: why it cannot be used, and what to write.
    """

    file: str
    number: int
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}: {self.column} is {self.value}: {self.reason}"


def describe(bad: Sequence[BadRow]) -> str:
    """Returns the first bad rows of each reason in words."""
    by_reason: dict[tuple[str, str], list[BadRow]] = {}
    for row in bad:
        by_reason.setdefault((row.column, row.reason), []).append(row)
    texts = []
    for rows in list(by_reason.values())[:KINDS_SHOWN]:
        texts.append(str(rows[0]) + (f" (so are {len(rows) - 1} more)" if len(rows) > 1 else ""))
    if len(by_reason) > KINDS_SHOWN:
        texts.append(f"{len(by_reason) - KINDS_SHOWN} more kinds")
    return "; ".join(texts)


def write_bad_rows(path: Path, bad: Sequence[BadRow]) -> None:
    """Writes bad rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in bad]
    path.write_text("".join(lines), encoding="utf-8")


class RowError(Exception):
    """Raised for a row that cannot be played or scored; see :class:`BadRow` for the arguments."""

    def __init__(self, column: str, value: object, reason: str):
        super().__init__(reason)
        self.column, self.value, self.reason = column, f"{value!r:.80}", reason

    def at(self, file: Path, number: int) -> BadRow:
        """Returns the description of the row."""
        return BadRow(str(file), number, self.column, self.value, self.reason)


@dataclass(frozen=True, slots=True)
class PlayableRow:
    """Holds what an episode and its scoring need of a row.

    Attributes:
        messages: the question.
        truth: the ground truth as text; as it stands in the row if another package's reward manager reads it.
        data_source, ability: columns that choose the scorer.
        is_code: True if answers are run as programs.
        converted: columns whose form verl cannot use, with the form in words; empty for most rows.
    """

    messages: tuple[dict[str, str], ...]
    truth: Any
    data_source: str
    ability: str | None
    is_code: bool
    converted: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads rows by the settings of a job or an evaluation.

    Attributes:
        truths: how ground truths are used.
        prompt_key: column of the questions.
    """

    truths: TruthRules
    prompt_key: str = "prompt"

    def read(self, row: Mapping[str, Any]) -> PlayableRow:
        """Returns a row's question and ground truth in the form that episodes and scorers take.

        Raises:
            RowError: it cannot be played or scored.
        """
        chat = self._chat(row)
        source = row.get("data_source")
        if not isinstance(source, str) or not source:
            raise RowError("data_source", source, "must name the dataset, which decides how answers are scored")
        ability = row.get("ability")
        if ability is not None and not isinstance(ability, str):
            raise RowError(
                "ability", ability, 'must be a text: "code" if answers are run as programs, else e.g. "math"'
            )
        block, block_form = _reward_model(row)
        given = block.get("ground_truth")
        truth = self._truth(given, source, ability)
        converted = {}
        if chat.form != LIST:
            converted[self.prompt_key] = chat.form
        if block_form:
            converted["reward_model"] = block_form
        # Scorers take numbers as they are.
        if truth != given and not isinstance(given, int | float):
            converted["reward_model.ground_truth"] = f"of type {type(given).__name__}"
        is_code = self.truths.is_code(source, ability)
        return PlayableRow(chat.messages, truth, source, ability, is_code, converted)

    def _chat(self, row: Mapping[str, Any]) -> Chat:
        if self.prompt_key not in row:
            reason = f"the rows have the columns {', '.join(row)}; name the one of the questions with data.prompt_key"
            raise RowError(self.prompt_key, None, reason)
        try:
            return read_chat(row[self.prompt_key])
        except FormError as error:
            value = row[self.prompt_key] if error.value is None and not error.place else error.value
            raise RowError(f"{self.prompt_key}{error.place}", value, str(error)) from None

    def _truth(self, given: Any, source: str, ability: str | None) -> Any:
        column = "reward_model.ground_truth"
        if not self.truths.checked:
            if given is None or given == "":
                raise RowError(column, given, "is empty; give the row a ground truth, or drop it")
            return given
        try:
            return self.truths.read(given, source, ability)
        except FormError as error:
            raise RowError(column, given, str(error)) from None


def _reward_model(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Returns a row's column reward_model, and in words the form that it has if verl cannot use it."""
    value = row.get("reward_model")
    form = ""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value, form = json.loads(value), "JSON text"
    if not isinstance(value, Mapping):
        raise RowError(
            "reward_model", row.get("reward_model"), 'must be an object such as {"style": "rule", "ground_truth": "42"}'
        )
    return value, form
