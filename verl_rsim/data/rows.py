"""verl's parquet rows: found by name, read, written, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from verl_rsim.utils.artifact_folders import home
from verl_rsim.utils.errors import ConfigError, DataError


def evaluation_file(key: str, source: str) -> Path:
    """A parquet file, or the test split of prepared data by its name.

    Args:
        key: the setting that names it.

    Raises:
        ConfigError: there is none.
    """
    path, fix = Path(source).expanduser(), "write its path from the folder you are in, or in full"
    if not source.endswith(".parquet"):
        path = home() / "data" / source / "test.parquet"
        fix = f"make it with: verl-rsim prepare-data {source}; or name a .parquet file"
    if not path.is_file():
        raise ConfigError(key, source, f"there is no file {path}; {fix}")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a parquet file.

    Raises:
        DataError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is no parquet file: {str(error).splitlines()[0]}") from None


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows as JSON lines with sorted keys: the same for the same rows, whichever version wrote the file."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return sha.hexdigest()
