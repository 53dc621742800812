"""Finds, reads, writes and hashes files of rows."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_rsim.utils.artifact_folders import home
from verl_rsim.utils.errors import ConfigError, DataError

VERL_SUFFIXES = (".parquet", ".json", ".jsonl")
"""Endings of the files that verl's datasets read."""
SUFFIXES = (*VERL_SUFFIXES, ".csv")
"""Endings of the files that :func:`iter_rows` reads."""


def evaluation_file(key: str, source: str) -> Path:
    """Returns the path of a file of rows, or of the test split of prepared data by its name.

    Args:
        key: the setting that names it, for the error message.
        source: a path that ends with .parquet, .json or .jsonl, or the name of prepared data.

    Raises:
        ConfigError: there is no such file.
    """
    path, fix = Path(source).expanduser(), "write its absolute path, or its path from the current folder"
    if not source.endswith(VERL_SUFFIXES):
        path = home() / "data" / source / "test.parquet"
        fix = f"make it with: verl-rsim prepare-data {source}; or name a .parquet file"
    if not path.is_file():
        raise ConfigError(key, source, f"there is no file {path}; {fix}")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns all rows of a file; see :func:`iter_rows`."""
    return list(iter_rows(path))


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file in their order: parquet and csv as a stream, JSON after reading all of it.

    A .json or .jsonl file holds one row a line, one list of rows, or one object with the list under a single key. A
    byte-order mark is skipped. All values of a .csv file are text.

    Raises:
        DataError: the file cannot be read, or a line or row of it is no JSON object.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        if path.suffix == ".csv":
            yield from _csv_rows(path)
        else:
            yield from _json_rows(path, path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start}); convert it") from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is no parquet file: {str(error).splitlines()[0]}") from None


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than the tests of one program
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            if None in row or None in row.values():
                raise DataError(
                    f"{path}, row {number}: has not as many cells as the first line; quote cells with commas"
                )
            yield row


def _json_rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    whole = _whole_json(path, text)
    if whole is not None:
        rows: Iterable[Any] = whole
    else:
        rows = _json_lines(path, text)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, row {number}: must be a JSON object with the row's columns, not {str(row)[:80]!r}"
            )
        yield row


def _whole_json(path: Path, text: str) -> list[Any] | None:
    """Returns the rows of a text that is one JSON value; None if it has one value a line."""
    if text.lstrip()[:1] != "[" and path.suffix != ".json":
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] == "{":  # verl also takes lines in a file that is named .json
            return None
        raise DataError(f"{path}: is not JSON: {error}") from None
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        return lists[0] if len(value) == len(lists) == 1 else [value]
    return value if isinstance(value, list) else [value]


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: is not JSON: {error}") from None


def count_rows(path: Path) -> int | None:
    """Returns the number of rows of a parquet file; None for other files, which tell it only when they are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix != ".parquet":
        return None
    try:
        return pq.ParquetFile(path).metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is no parquet file: {str(error).splitlines()[0]}") from None


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the SHA-256 of rows as JSON lines with sorted keys."""
    # A hash of the file would differ between versions of pyarrow that write the same rows.
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return sha.hexdigest()
