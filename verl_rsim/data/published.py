"""Public datasets by name: where each lies on the Hugging Face hub, its splits, and how a row of it becomes a question.

A local copy in the published layout takes the hub's place: it is read by the same code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from verl_rsim.data.question import Question
from verl_rsim.utils.artifact_folders import digest
from verl_rsim.utils.errors import DataError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset of the hub.

    Attributes:
        hub: repository id.
        columns: the ones that ``question`` reads.
        question: a row's question; None if it cannot be asked in text, or has no answer.
        rows: splits and how many rows each was published with; evaluation sets have no ``train``.
        config: of the repository; None for its only one.
    """

    hub: str
    columns: tuple[str, ...]
    question: Callable[[Row], Question | None]
    rows: Mapping[str, int]
    config: str | None = None


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """A question with its options, one a line, from A on."""
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
        answer += ".0"  # the type shows in the form
    return Question(row["Question"], answer)


def humaneval_question(row: Row) -> Question:
    """The question of a row of HumanEval, from the hub or from OpenAI's package."""
    tests = {"kind": "humaneval", **{key: row[key] for key in ("entry_point", "test", "prompt")}}
    return Question(
        f"Complete this Python function:\n\n```python\n{row['prompt'].rstrip()}\n```", json.dumps(tests), "code"
    )


def _mbpp(row: Row) -> Question:
    tests = {"kind": "asserts", **{key: row[key] for key in ("test_list", "test_setup_code")}}
    shown = "\n".join(row["test_list"])
    return Question(f"{row['text']}\nYour code should pass these tests:\n{shown}", json.dumps(tests), "code")


def _finqa(row: Row) -> Question:
    table = "\n".join(" | ".join(cells) for cells in row["table"])
    report = "\n\n".join(part for part in (" ".join(row["pre_text"]), table, " ".join(row["post_text"])) if part)
    return Question(f"{report}\n\n{row['question']}", _executed(row["exe_ans"].strip(), row["answer"].strip()))


def _executed(value: str, written: str) -> str:
    """What the program of a FinQA question results in; as a percentage where the annotator wrote it as one."""
    percent = re.fullmatch(r"(-?[\d.,]+)\s*%", written)
    try:
        exact, shown = float(value), float(percent[1].replace(",", "")) if percent else None
    except ValueError:  # yes or no
        return value
    if shown is not None and abs(100 * exact - shown) <= max(1.0, abs(shown) / 10):
        return f"{100 * exact:.6g}%"
    return value


PUBLISHED: Mapping[str, Published] = {
    "math": Published(
        "DigitalLearningGmbH/MATH-lighteval", ("problem", "solution"), _math, {"train": 7500, "test": 5000}, "default"
    ),
    "math500": Published("HuggingFaceH4/MATH-500", ("problem", "answer"), _math500, {"test": 500}),
    "gsm8k": Published("openai/gsm8k", ("question", "answer"), _gsm8k, {"train": 7473, "test": 1319}, "main"),
    "aqua": Published(
        "deepmind/aqua_rat", ("question", "options", "correct"), _aqua, {"train": 97467, "test": 254}, "raw"
    ),
    "mmlu_pro": Published("TIGER-Lab/MMLU-Pro", ("question", "options", "answer"), _mmlu_pro, {"test": 12032}),
    "theoremqa": Published(
        "TIGER-Lab/TheoremQA", ("Question", "Answer", "Answer_type", "Picture"), _theoremqa, {"test": 800}
    ),
    "humaneval": Published(
        "openai/openai_humaneval", ("prompt", "entry_point", "test"), humaneval_question, {"test": 164}
    ),
    "mbpp": Published(
        "google-research-datasets/mbpp",
        ("text", "test_list", "test_setup_code"),
        _mbpp,
        {"train": 374, "test": 500},
        "full",
    ),
    "finqa": Published(
        "rootsautomation/FinQA",
        ("pre_text", "table", "post_text", "question", "answer", "exe_ans"),
        _finqa,
        {"train": 6251, "test": 1147},
    ),
}
"""Name, which is also the rows' ``data_source``, to where the set lies."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read of a published set.

    Attributes:
        questions: by split, in published order.
        read: rows by split.
        origin: where they come from, for the manifest: the hub's repository and its commit, or files and their hashes.
    """

    questions: Mapping[str, list[Question]]
    read: Mapping[str, int]
    origin: Mapping[str, Any]


def load_published(name: str, copy: Path | None = None, revision: str | None = None) -> Loaded:
    """Read a set of :data:`PUBLISHED`.

    Args:
        copy: a folder in the published layout (a clone of the repository, or files that have train and test in their
            names), or the one file of an evaluation set; None for the hub.
        revision: commit or tag of the hub's repository; None for its newest.

    Raises:
        DataError: it cannot be reached or read, or is laid out otherwise.
    """
    published = PUBLISHED[name]
    questions, read = {}, {}
    origin: dict[str, Any] = (
        {"files": {str(path.relative_to(copy.parent)): digest(path) for path in data_files(copy)}}
        if copy
        else {"hub": published.hub, "config": published.config}
    )
    for split in published.rows:
        dataset = _copied(name, copy, split) if copy else _downloaded(name, split, revision)
        if missing := [column for column in published.columns if column not in dataset.column_names]:
            raise DataError(f"{copy or published.hub} ({split}): {name} needs {missing}, has {dataset.column_names}")
        if copy is None:
            origin["revision"] = _commit(dataset)
        read[split] = len(dataset)
        asked = map(published.question, dataset.select_columns(list(published.columns)))
        questions[split] = [question for question in asked if question]
    return Loaded(questions, read, origin)


def _downloaded(name: str, split: str, revision: str | None) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    published = PUBLISHED[name]
    print(f"Loading {name} ({split}) from the Hugging Face hub: {published.hub}", flush=True)
    try:
        return load_dataset(published.hub, published.config, split=split, revision=revision)
    except (ConnectionError, DatasetNotFoundError, ValueError) as error:
        raise DataError(
            f"{name} cannot be had from the Hugging Face hub ({published.hub}): {_first_line(error)}. Without internet "
            f"name a local copy of it: verl-rsim prepare-data {name} --source FOLDER (docs/data.md)"
        ) from None


def _copied(name: str, copy: Path, split: str) -> Any:
    from datasets import get_dataset_config_names, load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    published = PUBLISHED[name]
    if copy.is_file() and len(published.rows) > 1:
        raise DataError(f"{copy}: {name} has the splits {', '.join(published.rows)}: name a folder with a file of each")
    try:
        if copy.is_file():
            kind = "parquet" if copy.suffix == ".parquet" else "json"
            return load_dataset(kind, data_files={split: str(copy)}, split=split)
        if not copy.is_dir():
            raise DataError(f"{copy}: there is no such file or folder")
        configs = get_dataset_config_names(str(copy))
        return load_dataset(str(copy), published.config if published.config in configs else None, split=split)
    except (DatasetGenerationError, DatasetNotFoundError, OSError, ValueError) as error:
        raise DataError(f"{copy}: {name} ({split}) cannot be read: {_first_line(error.__cause__ or error)}") from None


def _commit(dataset: Any) -> str | None:
    """The commit of the hub's repository: datasets names the folder of its cache by it."""
    files = dataset.cache_files
    return Path(files[0]["filename"]).parent.name if files else None


def data_files(copy: Path) -> list[Path]:
    """The files of a local copy that hold rows."""
    kinds = (".parquet", ".json", ".jsonl")
    return [copy] if copy.is_file() else sorted(path for path in copy.rglob("*") if path.suffix in kinds)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
