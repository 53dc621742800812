"""Reads and writes the records of an evaluation: one JSON line for each scored answer, appended and never rewritten.

A kill can leave an incomplete last line. The next start removes it and plays that answer again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.utils.errors import DataError

RECORDS = "records.jsonl"

RecordKey = tuple[str, str, int]
"""Identifies an answer: (condition, question, sample)."""


@dataclass(frozen=True, slots=True)
class Record:
    """Holds one scored answer.

    Attributes:
        condition: "planner", "base_planner" or a control (see :mod:`.conditions`).
        question: id of the question; the same text and truth have the same id in every dataset.
        sample: index of the sample, 0 to k - 1.
        correct: 1.0 if the answer is right, else 0.0.
        reason: the scorer's reason: "right", "wrong", "no_answer", "timeout" ...
        answer: the answer in its canonical spelling, which maj@k counts; None if the text states none.
        stop: reason for which the episode ended, a :class:`verl_rsim.core.episode.Stop`.
        strategies: names of the chosen strategies, in order; empty if the reasoner played alone.
        keywords: occurrences of each strategy's key words in the reasoner's text, in the order of STRATEGIES.
        planner_tokens: tokens that the planner generated; 0 if no model chose.
        planner_read: other tokens of the planner's row: prompt and observed steps.
        reasoner_tokens: tokens that the reasoner generated.
        reasoner_read: other tokens of the reasoner's row: prompt and instructions.
        planner_seconds, reasoner_seconds: seconds spent waiting for each model, including its queue.
        seconds: wall time of the episode, without scoring.
        text: scored text: instructions and steps.
    """

    condition: str
    question: str
    sample: int
    correct: float
    reason: str
    answer: str | None
    stop: str
    strategies: tuple[str, ...]
    keywords: tuple[int, ...]
    planner_tokens: int
    planner_read: int
    reasoner_tokens: int
    reasoner_read: int
    planner_seconds: float
    reasoner_seconds: float
    seconds: float
    text: str

    @property
    def key(self) -> RecordKey:
        """Identifier of the answer: (condition, question, sample)."""
        return self.condition, self.question, self.sample


_FIELDS = frozenset(field.name for field in dataclasses.fields(Record))


def read_records(folder: Path) -> list[Record]:
    """Returns the answers recorded so far, in the order of the file, without an incomplete last line.

    Raises:
        DataError: a line is not a record of this version.
    """
    path = folder / RECORDS
    if not path.is_file():
        return []
    return list(_parse(path))


def _parse(path: Path) -> Iterator[Record]:
    data = path.read_bytes()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            values = json.loads(line)
            if set(values) != _FIELDS:
                raise ValueError(f"its fields are not those of this version: {sorted(set(values) ^ _FIELDS)}")
            lists = {name: tuple(values[name]) for name in ("strategies", "keywords")}
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: is not a record ({error}); delete the line to play the answer again"
            ) from None
        yield Record(**{**values, **lists})


class RecordFile:
    """Appends records to the file in a folder, after removing an incomplete last line that a kill left.

    Attributes:
        records: all records of the file.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.records = read_records(folder)
        path = folder / RECORDS
        if path.is_file():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._file = path.open("a", encoding="utf-8")

    def keys(self) -> set[RecordKey]:
        """Returns the identifiers of all recorded answers."""
        return {record.key for record in self.records}

    def append(self, record: Record) -> None:
        """Adds a record; once this returns, a kill of this process does not lose it."""
        self._file.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")
        self._file.flush()  # fsync would take milliseconds an answer and helps in a power cut only
        self.records.append(record)

    def close(self) -> None:
        """Writes the records to disk and closes the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
