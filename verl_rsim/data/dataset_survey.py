"""Reads every row of a dataset before a job starts: what can be used, what must be converted, what is wrong."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.data.row_reader import BadRow, PlayableRow, RowError, RowReader, describe
from verl_rsim.data.rows import VERL_SUFFIXES, count_rows, iter_rows
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.progress import track

Messages = Sequence[dict[str, str]]

MAX_READ = 1_000_000
"""Rows of a parquet file above which only every n-th row is read."""
SAMPLE = 500
"""Questions that are kept for checks that need a tokenizer."""
PROGRESS_ROWS = 20_000
"""Rows of a parquet file from which on the reading shows its progress."""


@dataclass(slots=True)
class DatasetSurvey:
    """Holds what was found in the files of a dataset.

    Attributes:
        key: setting that names the files.
        files: the files, in their order.
        rows: rows of the files.
        read: rows that were read; fewer than ``rows`` only in very large files.
        bad: rows that cannot be used.
        converted: rows by column and form, for the columns that verl cannot use as they stand.
        changed: files that must be written anew for verl, because of bad or converted rows.
        first_of_roles: the first question of each sequence of roles.
        sample: a random sample of the questions.
        coding_tasks: rows whose answers are run as programs.
        repeated: rows whose question stood in an earlier row.
    """

    key: str
    files: tuple[Path, ...]
    rows: int = 0
    read: int = 0
    bad: list[BadRow] = field(default_factory=list)
    converted: Counter[tuple[str, str]] = field(default_factory=Counter)
    changed: set[Path] = field(default_factory=set)
    first_of_roles: dict[tuple[str, ...], Messages] = field(default_factory=dict)
    sample: list[Messages] = field(default_factory=list)
    coding_tasks: int = 0
    repeated: int = 0
    _seen: set[int] = field(default_factory=set)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def usable(self) -> int:
        """Returns the number of rows that are left without the bad ones."""
        return self.rows - len(self.bad)

    def add(self, row: PlayableRow) -> None:
        """Counts a row that can be used."""
        self.coding_tasks += row.is_code
        for column, form in row.converted.items():
            self.converted[column, form] += 1
        self.first_of_roles.setdefault(tuple(message["role"] for message in row.messages), row.messages)
        identity = hash(tuple(message["content"] for message in row.messages))
        self.repeated += identity in self._seen
        self._seen.add(identity)
        # Reservoir sampling: the number of rows is not known in advance.
        good = self.read - len(self.bad)
        if len(self.sample) < SAMPLE:
            self.sample.append(row.messages)
        elif (place := self._random.randrange(good)) < SAMPLE:
            self.sample[place] = row.messages

    def notes(self) -> list[str]:
        """Returns what a user should know of the rows, one sentence each."""
        notes = []
        if self.read < self.rows:
            notes.append(f"{self.read} of {self.rows} rows were read, evenly spaced: the dataset is very large")
        for (column, form), count in self.converted.items():
            notes.append(f"{count} of {self.read} rows hold {column} as {form}; the job trains on a converted copy")
        if self.repeated:
            notes.append(f"{self.repeated} of {self.read} rows repeat the question of an earlier row")
        if self.bad:
            notes.append(f"{len(self.bad)} of {self.read} rows cannot be used and are left out; {describe(self.bad)}")
        return notes

    def check_bad_rows(self, allowed: int) -> None:
        """Checks that no more rows are bad than a setting allows, and that some are left.

        Raises:
            ConfigError: names the first bad rows.
        """
        if not self.rows:
            raise ConfigError(self.key, [str(file) for file in self.files], "the dataset has no rows")
        if len(self.bad) > allowed:
            fix = f"{len(self.bad)} of {self.read} rows cannot be used; {describe(self.bad)}"
            if self.usable:
                fix += f"; mend or drop them, or let the job leave them out: rsim.max_bad_rows={len(self.bad)}"
            raise ConfigError(self.key, ", ".join(map(str, self.files)), fix)
        if not self.usable:
            raise ConfigError(self.key, ", ".join(map(str, self.files)), f"no row can be used; {describe(self.bad)}")


def survey(key: str, files: Sequence[Path], reader: RowReader, *, limit: int | None = None) -> DatasetSurvey:
    """Reads the rows of a dataset.

    Args:
        key: setting that names the files.
        files: files that verl reads.
        reader: reads a row.
        limit: rows to read from the start of each file; None for all.

    Raises:
        ConfigError: a file is absent, or of a kind that verl does not read.
        DataError: a file is damaged.
    """
    found = DatasetSurvey(key, tuple(files))
    for file in files:
        if file.suffix not in VERL_SUFFIXES:
            fix = f"verl reads {', '.join(VERL_SUFFIXES)}; convert it with: verl-rsim prepare-data {file.name}"
            raise ConfigError(key, str(file), fix)
        if not file.is_file():
            raise ConfigError(key, str(file), "there is no such file; make it with: verl-rsim prepare-data")
        for number, row in _numbered_rows(file, found, limit):
            found.read += 1
            try:
                playable = reader.read(row)
            except RowError as error:
                found.bad.append(error.at(file, number))
                found.changed.add(file)
                continue
            if playable.converted:
                found.changed.add(file)
            found.add(playable)
    return found


def _numbered_rows(file: Path, found: DatasetSurvey, limit: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a file that are read, with their numbers, and counts all rows."""
    count = count_rows(file)
    stride = -(-count // MAX_READ) if count else 1
    rows: Any = iter_rows(file)
    if count and count >= PROGRESS_ROWS:
        rows = track(rows, f"Reading {file.name}", count)
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            return
        found.rows += 1
        if number % stride == 0:
            yield number, row


def write_usable_rows(file: Path, reader: RowReader, target: Path) -> None:
    """Writes a file's usable rows as parquet, with question and ground truth in verl's form; other columns stay.

    Raises:
        DataError: a column of the file has values of several types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for row in iter_rows(file):
        try:
            playable = reader.read(row)
        except RowError:
            continue
        style = "rule"
        block = row["reward_model"]
        if isinstance(block, dict):
            style = block.get("style") or style
        reward_model = {"style": style, "ground_truth": playable.truth}
        rows.append({**row, reader.prompt_key: list(playable.messages), "reward_model": reward_model})
    try:
        table = pa.Table.from_pylist(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = f"a column has values of several types ({str(error).splitlines()[0]}); give them one"
        raise DataError(f"{file}: {reason}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target)
