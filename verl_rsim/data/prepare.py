"""Writes questions as verl's parquet rows: ``train.parquet`` and ``test.parquet`` with a manifest."""

from __future__ import annotations

import random
from pathlib import Path

from verl_rsim.data.sources import Question, generated, hub, is_file_name, own_file
from verl_rsim.folders import build_folder, digest

INSTRUCTION = "Think step by step and put the final answer in \\boxed{}."


def verl_row(question: Question, data_source: str, split: str, index: int, instruction: str) -> dict:
    """One row in the format of verl's RLHFDataset."""
    content = f"{question.text}\n{instruction}" if instruction else question.text
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": content}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {"split": split, "index": index, "question": question.text},
    }


def load(source: str, train: int, test: int, seed: int, question: str, answer: str) -> dict[str, list[Question]]:
    """Training and test questions of a source, disjoint, in a fixed order.

    Args:
        source: a reasoning-gym generator's name, ``gsm8k``, ``math``, or a .jsonl or .parquet file.
        train, test: how many of each; fewer when the source has fewer.
        seed: of the generation or the split.
        question, answer: the columns of a file.
    """
    if source in ("gsm8k", "math"):
        return {"train": hub(source, "train")[:train], "test": hub(source, "test")[:test]}
    if is_file_name(source):
        questions = own_file(Path(source), question, answer)
        random.Random(seed).shuffle(questions)
    else:
        unique: dict[str, Question] = {}
        for drawn in generated(source, 4 * (train + test), seed):
            unique.setdefault(drawn.text, drawn)
        questions = list(unique.values())
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
    instruction: str = INSTRUCTION,
) -> bool:
    """Write a source's questions below ``folder``; a no-op when they are there.

    Returns:
        Whether anything was written.
    """
    name = Path(source).stem if is_file_name(source) else source
    version = f" sha256={digest(Path(source))}" if is_file_name(source) and Path(source).is_file() else ""
    made_from = (
        f"{source}{version} train={train} test={test} seed={seed} columns={question},{answer} instruction={instruction}"
    )

    def write(target: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for split, questions in load(source, train, test, seed, question, answer).items():
            rows = [verl_row(q, name, split, index, instruction) for index, q in enumerate(questions)]
            pq.write_table(pa.Table.from_pylist(rows), target / f"{split}.parquet")

    return build_folder(folder, made_from, write)
