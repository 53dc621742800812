"""Finds, reads, writes and hashes verl's parquet rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from verl_rsim.utils.artifact_folders import home
from verl_rsim.utils.errors import ConfigError, DataError


def evaluation_file(key: str, source: str) -> Path:
    """Returns the path of a parquet file, or of the test split of prepared data by its name.

    Args:
        key: the setting that names it, for the error message.
        source: a path that ends with .parquet, or the name of prepared data.

    Raises:
        ConfigError: there is no such file.
    """
    path, fix = Path(source).expanduser(), "write its absolute path, or its path from the current folder"
    if not source.endswith(".parquet"):
        path = home() / "data" / source / "test.parquet"
        fix = f"make it with: verl-rsim prepare-data {source}; or name a .parquet file"
    if not path.is_file():
        raise ConfigError(key, source, f"there is no file {path}; {fix}")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns all rows of a parquet file.

    Raises:
        DataError: it is not a parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
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
