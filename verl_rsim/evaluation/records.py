"""What an evaluation writes: one JSON line for each answer, appended when it is scored, and never rewritten.

A kill can cut the last line short; the next start cuts it off and plays that answer again.
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

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One scored answer.

    Attributes:
        condition: who answered: "planner", or a control (see :mod:`.conditions`).
        question: id of the question; the same text and truth have the same id in every dataset.
        sample: 0 to k - 1.
        correct: 1.0 if the answer is right, else 0.0.
        reason: the scorer's word for why: "right", "wrong", "no_answer", "timeout" ...
        answer: what was found as the answer, in one spelling; None if nothing was. What maj@k counts.
        stop: why the answer ended, a :class:`verl_rsim.core.dialogue.Stop`.
        strategies: names of the strategies chosen, in order; none where the reasoner was alone.
        keywords: how often each strategy's key words occur in what the reasoner wrote, in the order of STRATEGIES.
        planner_tokens: tokens the planner generated; 0 where no model chose.
        planner_read: the other tokens of the planner's row: prompt and observed steps.
        reasoner_tokens: tokens the reasoner generated.
        reasoner_read: the other tokens of its row: prompt and instructions.
        planner_seconds, reasoner_seconds: of waiting for each model, its queue included.
        seconds: wall time of the whole answer, without scoring.
        text: what was scored: instructions and steps.
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
    def key(self) -> Key:
        """What tells answers apart: (condition, question, sample)."""
        return self.condition, self.question, self.sample


_FIELDS = frozenset(field.name for field in dataclasses.fields(Record))


def read_records(folder: Path) -> list[Record]:
    """The answers recorded so far, in the order they came; a line cut short at the end is left out.

    Raises:
        DataError: a line that is no record.
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
                f"{path}:{number}: is no record ({error}); delete the line to play the answer again"
            ) from None
        yield Record(**{**values, **lists})


class RecordFile:
    """The records of a folder, open for appending; what a kill left of a line is cut off first.

    Attributes:
        records: read at the start and appended since.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.records = read_records(folder)
        path = folder / RECORDS
        if path.is_file():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._file = path.open("a", encoding="utf-8")

    def keys(self) -> set[Key]:
        """What need not be played again."""
        return {record.key for record in self.records}

    def append(self, record: Record) -> None:
        """Add a line; it is in the file, as far as a kill of this process goes, when this returns."""
        self._file.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")
        self._file.flush()
        self.records.append(record)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
