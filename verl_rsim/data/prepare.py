"""Writes questions as verl's parquet rows: ``train.parquet`` and ``test.parquet`` with a manifest."""

from __future__ import annotations

import random
from pathlib import Path

from verl_rsim.data.sources import FINANCE, HUB, Question, finance, generated, hub, humaneval, is_file_name, own_file
from verl_rsim.errors import DataError
from verl_rsim.folders import build_folder, digest
from verl_rsim.reward.answer_types import AnswerTypes
from verl_rsim.reward.code_truth import parse_truth
from verl_rsim.reward.verdict import TruthError

INSTRUCTIONS = {
    "math": "Think step by step and put the final answer in \\boxed{}.",
    "code": "Think step by step and end with the whole solution in one Python code block.",
}
"""What is added to a question, by its ability."""


def verl_row(question: Question, data_source: str, split: str, index: int, instruction: str | None = None) -> dict:
    """One row in the format of verl's RLHFDataset; ``instruction`` replaces the usual one, "" adds none."""
    instruction = INSTRUCTIONS[question.ability] if instruction is None else instruction
    content = f"{question.text}\n{instruction}" if instruction else question.text
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": content}],
        "ability": question.ability,
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {"split": split, "index": index, "question": question.text},
    }


def data_source(source: str) -> str:
    """The rows' ``data_source``: a file's name without its ending, else the source's name."""
    return Path(source).stem if is_file_name(source) else source


def usable(questions: list[Question], name: str) -> list[Question]:
    """The questions whose ground truth can be scored; says how many were dropped, and why the first one was.

    Raises:
        DataError: none can.
    """
    types, kept, first = AnswerTypes(), [], ""
    for question in questions:
        try:
            if question.ability == "code":
                parse_truth(question.answer)
            else:
                types.check_truth(question.answer, name)
            kept.append(question)
        except TruthError as error:
            first = first or f"{error} (question {question.text[:80]!r})"
    if not kept:
        raise DataError(f"{name}: no question has a ground truth that can be used: {first}")
    if first:
        print(f"{name}: dropped {len(questions) - len(kept)} of {len(questions)} questions; the first: {first}")
    return kept


def load(
    source: str, train: int, test: int, seed: int, question: str, answer: str, ability: str = "math"
) -> dict[str, list[Question]]:
    """Training and test questions of a source, disjoint, in a fixed order.

    Args:
        source: a reasoning-gym generator's name, ``gsm8k``, ``math``, ``mbpp``, ``humaneval``,
            ``finance_synthetic``, or a .jsonl or .parquet file.
        train, test: how many of each; fewer when the source has fewer.
        seed: of the generation or the split.
        question, answer: the columns of a file.
        ability: "code" if the answers of a file are tests.
    """
    if source in HUB:
        counts = {"train": train, "test": test}
        return {split: usable(hub(source, split), source)[:count] for split, count in counts.items()}
    if is_file_name(source):
        questions = own_file(Path(source), question, answer, ability)
        random.Random(seed).shuffle(questions)
    elif source == "humaneval":
        questions = humaneval()
        random.Random(seed).shuffle(questions)
    else:
        unique: dict[str, Question] = {}
        count = 4 * (train + test)
        for drawn in finance(count, seed) if source == FINANCE else generated(source, count, seed):
            unique.setdefault(drawn.text, drawn)
        questions = list(unique.values())
    questions = usable(questions, data_source(source))
    held_out = min(test, max(1, len(questions) // 5))
    return {"test": questions[:held_out], "train": questions[held_out : held_out + train]}


def prepare(
    folder: Path,
    source: str,
    train: int = 512,
    test: int = 64,
    seed: int = 0,
    question: str = "question",
    answer: str = "answer",
    instruction: str | None = None,
    ability: str = "math",
) -> bool:
    """Write a source's questions below ``folder``; a no-op when they are there. Arguments: see :func:`load`.

    Returns:
        Whether anything was written.
    """
    name = data_source(source)
    version = f" sha256={digest(Path(source))}" if is_file_name(source) and Path(source).is_file() else ""
    made_from = (
        f"{source}{version} train={train} test={test} seed={seed} columns={question},{answer} "
        f"instruction={instruction} ability={ability}"
    )

    def write(target: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for split, questions in load(source, train, test, seed, question, answer, ability).items():
            rows = [verl_row(q, name, split, index, instruction) for index, q in enumerate(questions)]
            pq.write_table(pa.Table.from_pylist(rows), target / f"{split}.parquet")

    return build_folder(folder, made_from, write)
