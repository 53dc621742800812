"""Mixes training rows of earlier tasks into those of a new task (replay), so that a policy forgets less.

Rows are copied whole, so that their ``data_source`` and ``ability`` still choose the scorer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_rsim.utils.artifact_folders import build_folder, digest
from verl_rsim.utils.errors import DataError

TRAIN_FILE = "train.parquet"


def replay_counts(new_rows: int, share: float, tasks: int) -> list[int]:
    """Returns the number of rows to take from each earlier task, so that together they make up ``share`` of the mix.

    Args:
        new_rows: rows of the new task; all of them are in the mix.
        share: share of replayed rows in the mix, in [0, 1).
        tasks: number of earlier tasks; each gives the same number of rows, to within one.
    """
    replayed = round(new_rows * share / (1 - share)) if tasks else 0
    return [replayed // tasks + (index < replayed % tasks) for index in range(tasks)]


def largest_share(new_rows: int, earlier_rows: Sequence[int]) -> float:
    """Returns the largest share of replay for which these tasks have enough rows, rounded down to a hundredth."""
    for percent in range(99, 0, -1):
        if _fits(replay_counts(new_rows, percent / 100, len(earlier_rows)), earlier_rows):
            return percent / 100
    return 0.0


def _fits(counts: Sequence[int], rows: Sequence[int]) -> bool:
    return all(count <= available for count, available in zip(counts, rows, strict=True))


def check_replay(new: Path, earlier: Mapping[str, Path], share: float) -> list[int]:
    """Returns :func:`replay_counts` for the rows in these files, after checking that there are enough.

    Args:
        new: parquet file of the new task's training rows.
        earlier: parquet files of earlier tasks' training rows, by task.
        share: share of replayed rows in the mix, in [0, 1).

    Raises:
        DataError: an earlier task has too few rows, or the share is so small that it would give none.
    """
    new_rows, rows = _row_count(new), [_row_count(path) for path in earlier.values()]
    counts = replay_counts(new_rows, share, len(rows))
    for name, available, count in zip(earlier, rows, counts, strict=True):
        if share and not count:
            raise DataError(f"replay={share} of {new_rows} new rows leaves none of {name}'s: raise it, or set it to 0")
        if count > available:
            fix = f"lower replay to {largest_share(new_rows, rows)} at most, or prepare more data"
            raise DataError(
                f"replay={share} of {new_rows} new rows takes {count} of {name}'s training rows, {earlier[name]} has "
                f"{available}: {fix}"
            )
    return counts


def _row_count(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows


def mix(folder: Path, new: Path, earlier: Mapping[str, Path], share: float, seed: int) -> Path:
    """Writes all rows of ``new`` and a sample of earlier tasks' rows, shuffled; does nothing if that mix exists.

    Args:
        folder: destination of ``train.parquet`` and its manifest.
        new: parquet file of the new task's training rows.
        earlier: parquet files of earlier tasks' training rows, by task.
        share: share of replayed rows in the mix, in [0, 1).
        seed: seed of the sample and the order; the same files, share and seed give the same file.

    Returns:
        Path of the parquet file.

    Raises:
        DataError: an earlier task has too few rows, or the files' columns have different types.
    """
    counts = check_replay(new, earlier, share)
    parts = [f"{name} {count} rows of {digest(earlier[name])}" for name, count in zip(earlier, counts, strict=True)]
    description = f"replay share={share} seed={seed} new {digest(new)} {' '.join(parts)}"

    def write(target: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(new).to_pylist()
        for (name, path), count in zip(earlier.items(), counts, strict=True):
            earlier_rows = pq.read_table(path).to_pylist()
            rows += random.Random(f"{seed}/{name}").sample(earlier_rows, count)
        random.Random(seed).shuffle(rows)
        columns: dict[str, None] = {}
        for row in rows:
            columns.update(dict.fromkeys(row))
        # Tasks may have columns of their own, and pyarrow takes the columns of the first row: every row gets them all.
        padded = [{**dict.fromkeys(columns), **row} for row in rows]
        try:
            table = pa.Table.from_pylist(padded)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            files = ", ".join(map(str, (new, *earlier.values())))
            raise DataError(f"the rows of {files} do not fit into one file: {str(error).splitlines()[0]}") from None
        pq.write_table(table, target / TRAIN_FILE)

    build_folder(folder, description, write)
    return folder / TRAIN_FILE
