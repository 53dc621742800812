"""Loads public datasets by name, from the Hugging Face hub or from a local copy in the published layout.

Both are read by the same code. :data:`PUBLISHED` holds each dataset's repository, splits and conversion to questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from verl_rsim.data.question import Question
from verl_rsim.data.row_reader import BadRow
from verl_rsim.utils.artifact_folders import digest
from verl_rsim.utils.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    """Describes a dataset on the hub.

    Attributes:
        hub: repository id.
        columns: columns that ``question`` reads.
        question: converts a row to a question; returns None if the row needs a picture or has no answer.
        rows: number of published rows of each split; evaluation sets have no ``train`` split.
        config: configuration of the repository; None if it has only one.
    """

    hub: str
    columns: tuple[str, ...]
    question: Callable[[Row], Question | None]
    rows: Mapping[str, int]
    config: str | None = None


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """Returns a question followed by its options, one a line, lettered from A."""
    lines = [f"{letter}) {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question.strip(), *lines])


def _math(row: Row) -> Question | None:
    from verl_rsim.reward.math_grading.scorer import last_boxed

    answer = last_boxed(row["solution"])
    return Question(row["problem"], answer) if answer else None


def _math500(row: Row) -> Question:
    return Question(row["problem"], row["answer"])


def _gsm8k(row: Row) -> Question:
    return Question(row["question"], row["answer"].split("####")[-1].strip().replace(",", ""))


def _aqua(row: Row) -> Question:
    options = [re.sub(r"^\s*\(?[A-E]\s*\)\s*", "", option) for option in row["options"]]
    return Question(multiple_choice(row["question"], options), row["correct"].strip())


def _mmlu_pro(row: Row) -> Question:
    return Question(multiple_choice(row["question"], row["options"]), row["answer"])


def _theoremqa(row: Row) -> Question | None:
    if row["Picture"] is not None:
        return None
    answer = row["Answer"].strip()
    if row["Answer_type"] == "float" and re.fullmatch(r"[+-]?\d+", answer):
        answer += ".0"  # the scorer tells integers and floats apart by their form
    return Question(row["Question"], answer)


def humaneval_question(row: Row) -> Question:
    """Converts a row of HumanEval, from the hub or from OpenAI's package, to a question."""
    tests = {"kind": "humaneval", **{key: row[key] for key in ("entry_point", "test", "prompt")}}
    return Question(
        f"Complete this Python function:\n\n```python\n{row['prompt'].rstrip()}\n```", json.dumps(tests), "code"
    )


def _mbpp(row: Row) -> Question:
    tests = {"kind": "asserts", **{key: row[key] for key in ("test_list", "test_setup_code")}}
    asserts = "\n".join(row["test_list"])
    return Question(f"{row['text']}\nYour code should pass these tests:\n{asserts}", json.dumps(tests), "code")


def _finqa(row: Row) -> Question:
    table = "\n".join(" | ".join(cells) for cells in row["table"])
    parts = (" ".join(row["pre_text"]), table, " ".join(row["post_text"]))
    report = "\n\n".join(part for part in parts if part)
    return Question(f"{report}\n\n{row['question']}", _program_result(row["exe_ans"].strip(), row["answer"].strip()))


def _program_result(value: str, written: str) -> str:
    """Returns the result of a FinQA question's program, as a percentage if the annotator wrote one.

    Args:
        value: result of the program, e.g. "0.25", "yes".
        written: the annotator's answer, e.g. "25%".
    """
    percent = re.fullmatch(r"(-?[\d.,]+)\s*%", written)
    try:
        exact = float(value)
        percentage = float(percent[1].replace(",", "")) if percent else None
    except ValueError:  # yes or no
        return value
    # Annotators round, so their percentage need only be close; otherwise it is another unit or a mistake.
    if percentage is not None and abs(100 * exact - percentage) <= max(1.0, abs(percentage) / 10):
        return f"{100 * exact:.6g}%"
    return value


PUBLISHED: Mapping[str, PublishedDataset] = {
    "math": PublishedDataset(
        "DigitalLearningGmbH/MATH-lighteval", ("problem", "solution"), _math, {"train": 7500, "test": 5000}, "default"
    ),
    "math500": PublishedDataset("HuggingFaceH4/MATH-500", ("problem", "answer"), _math500, {"test": 500}),
    "gsm8k": PublishedDataset("openai/gsm8k", ("question", "answer"), _gsm8k, {"train": 7473, "test": 1319}, "main"),
    "aqua": PublishedDataset(
        "deepmind/aqua_rat", ("question", "options", "correct"), _aqua, {"train": 97467, "test": 254}, "raw"
    ),
    "mmlu_pro": PublishedDataset("TIGER-Lab/MMLU-Pro", ("question", "options", "answer"), _mmlu_pro, {"test": 12032}),
    "theoremqa": PublishedDataset(
        "TIGER-Lab/TheoremQA", ("Question", "Answer", "Answer_type", "Picture"), _theoremqa, {"test": 800}
    ),
    "humaneval": PublishedDataset(
        "openai/openai_humaneval", ("prompt", "entry_point", "test"), humaneval_question, {"test": 164}
    ),
    "mbpp": PublishedDataset(
        "google-research-datasets/mbpp",
        ("text", "test_list", "test_setup_code"),
        _mbpp,
        {"train": 374, "test": 500},
        "full",
    ),
    "finqa": PublishedDataset(
        "rootsautomation/FinQA",
        ("pre_text", "table", "post_text", "question", "answer", "exe_ans"),
        _finqa,
        {"train": 6251, "test": 1147},
    ),
}
"""Published datasets by name; the name is also the rows' ``data_source``."""


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """Holds the questions of a dataset before they are filtered.

    Attributes:
        questions: questions of each split, in the source's order.
        read: rows read of each split.
        origin: source of the rows, for the manifest: the hub's repository and commit, or files and their hashes.
        bad: rows of the user's own file that cannot be used.
    """

    questions: Mapping[str, list[Question]]
    read: Mapping[str, int]
    origin: Mapping[str, Any]
    bad: tuple[BadRow, ...] = ()


def load_published(name: str, copy: Path | None = None, revision: str | None = None) -> LoadedDataset:
    """Loads a dataset of :data:`PUBLISHED`.

    Args:
        name: key of :data:`PUBLISHED`.
        copy: a folder in the published layout (a clone of the repository, or files with train and test in their
            names), or the only file of an evaluation set; None for the hub.
        revision: commit or tag of the hub's repository; None for the newest commit.

    Raises:
        DataError: the dataset cannot be reached or read, or lacks a column.
    """
    published = PUBLISHED[name]
    questions: dict[str, list[Question]] = {}
    read: dict[str, int] = {}
    origin: dict[str, Any] = {"hub": published.hub, "config": published.config}
    if copy:
        origin = {"files": {str(path.relative_to(copy.parent)): digest(path) for path in data_files(copy)}}
    for split in published.rows:
        dataset = _load_copy(name, copy, split) if copy else _load_from_hub(name, split, revision)
        missing = [column for column in published.columns if column not in dataset.column_names]
        if missing:
            raise DataError(f"{copy or published.hub} ({split}): {name} needs {missing}, has {dataset.column_names}")
        if copy is None:
            origin["revision"] = _commit(dataset)
        read[split] = len(dataset)
        converted = map(published.question, dataset.select_columns(list(published.columns)))
        questions[split] = [question for question in converted if question]
    return LoadedDataset(questions, read, origin)


def _load_from_hub(name: str, split: str, revision: str | None) -> Dataset:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    published = PUBLISHED[name]
    print(f"Loading {name} ({split}) from the Hugging Face hub: {published.hub}", flush=True)
    try:
        return load_dataset(published.hub, published.config, split=split, revision=revision)
    except (ConnectionError, DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"{name} cannot be loaded from the Hugging Face hub ({published.hub}): {_first_line(error)}. Without "
            f"internet name a local copy: verl-rsim prepare-data {name} --source FOLDER (docs/data.md)"
        ) from None


def _load_copy(name: str, copy: Path, split: str) -> Dataset:
    from datasets import get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    published = PUBLISHED[name]
    if copy.is_file() and len(published.rows) > 1:
        raise DataError(
            f"{copy}: {name} has the splits {', '.join(published.rows)}: name a folder with one file for each split"
        )
    try:
        if copy.is_file():
            kind = "parquet" if copy.suffix == ".parquet" else "json"
            return load_dataset(kind, data_files={split: str(copy)}, split=split)
        if not copy.is_dir():
            raise DataError(f"{copy}: there is no such file or folder")
        configs = get_dataset_config_names(str(copy))  # a clone has several; loose files have one, "default"
        return load_dataset(str(copy), published.config if published.config in configs else None, split=split)
    except (DatasetGenerationError, DatasetNotFoundError, OSError, ValueError) as error:
        raise DataError(f"{copy}: {name} ({split}) cannot be read: {_first_line(error.__cause__ or error)}") from None


def _commit(dataset: Dataset) -> str | None:
    """Returns the commit of the hub's repository, or None if no file was cached."""
    # The library does not report the commit, but names its cache folder after it.
    files = dataset.cache_files
    return Path(files[0]["filename"]).parent.name if files else None


def data_files(copy: Path) -> list[Path]:
    """Returns the files of a local copy that may hold rows."""
    kinds = (".parquet", ".json", ".jsonl")
    return [copy] if copy.is_file() else sorted(path for path in copy.rglob("*") if path.suffix in kinds)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
