"""Replay: training rows of a task mixed with rows of earlier tasks, so that a policy keeps seeing what it has learned.

Rows are taken over whole: their ``data_source`` and ``ability`` go on choosing the scorer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_rsim.utils.artifact_folders import build_folder, digest
from verl_rsim.utils.errors import DataError

TRAIN = "train.parquet"


def replay_counts(new_rows: int, share: float, tasks: int) -> list[int]:
    """How many rows each earlier task gives, so that together they are ``share`` of the mix.

    Args:
        new_rows: of the task that is learned; all of them are in the mix.
        share: in [0, 1).
        tasks: earlier ones; each gives the same number, to within one row.
    """
    replayed = round(new_rows * share / (1 - share)) if tasks else 0
    return [replayed // tasks + (index < replayed % tasks) for index in range(tasks)]


def largest_share(new_rows: int, earlier_rows: Sequence[int]) -> float:
    """The largest share of replay that these tasks can give, rounded down to a hundredth."""
    shares = range(99, 0, -1)
    fits = (s for s in shares if _fits(replay_counts(new_rows, s / 100, len(earlier_rows)), earlier_rows))
    return next(fits, 0) / 100


def _fits(counts: Sequence[int], rows: Sequence[int]) -> bool:
    return all(count <= there for count, there in zip(counts, rows, strict=True))


def check_replay(new: Path, earlier: Mapping[str, Path], share: float) -> list[int]:
    """The counts of :func:`replay_counts`, after a look at how many rows the files hold.

    Raises:
        DataError: an earlier task has too few, or would give none.
    """
    new_rows, rows = _row_count(new), [_row_count(path) for path in earlier.values()]
    counts = replay_counts(new_rows, share, len(rows))
    for name, there, wanted in zip(earlier, rows, counts, strict=True):
        if share and not wanted:
            raise DataError(f"replay={share} of {new_rows} new rows leaves none of {name}'s: raise it, or set it to 0")
        if wanted > there:
            fix = f"lower replay to {largest_share(new_rows, rows)} at most, or prepare more data"
            raise DataError(
                f"replay={share} of {new_rows} new rows takes {wanted} of {name}'s training rows, {earlier[name]} has "
                f"{there}: {fix}"
            )
    return counts


def _row_count(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows


def mix(folder: Path, new: Path, earlier: Mapping[str, Path], share: float, seed: int) -> Path:
    """Write all rows of ``new`` and some of earlier tasks, shuffled; a no-op when that mix is there already.

    Args:
        folder: gets ``train.parquet`` and a manifest.
        new, earlier: parquet files of training rows; earlier ones by task.
        share: of the mix, from earlier tasks; in [0, 1).
        seed: of choice and order; the same files, share and seed give the same file.

    Returns:
        The parquet file.

    Raises:
        DataError: an earlier task has too few rows, or the files' columns do not go together.
    """
    counts = check_replay(new, earlier, share)
    parts = [f"{name} {count} rows of {digest(earlier[name])}" for name, count in zip(earlier, counts, strict=True)]
    made_from = f"replay share={share} seed={seed} new {digest(new)} {' '.join(parts)}"

    def write(target: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pq.read_table(new).to_pylist()
        for (name, path), count in zip(earlier.items(), counts, strict=True):
            old = pq.read_table(path).to_pylist()
            rows += random.Random(f"{seed}/{name}").sample(old, count)
        random.Random(seed).shuffle(rows)
        columns = list(dict.fromkeys(column for row in rows for column in row))
        try:
            table = pa.Table.from_pylist([{column: row.get(column) for column in columns} for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            files = ", ".join(map(str, (new, *earlier.values())))
            raise DataError(f"the rows of {files} do not go into one file: {str(error).splitlines()[0]}") from None
        pq.write_table(table, target / TRAIN)

    build_folder(folder, made_from, write)
    return folder / TRAIN
