"""The questions of an evaluation: verl's parquet rows, checked before any model is loaded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_rsim.data.rows import evaluation_file, read_rows, rows_digest
from verl_rsim.reward.code_grading.program_tests import parse_truth
from verl_rsim.reward.scorer import Scorer, is_coding_task
from verl_rsim.reward.verdict import TruthError
from verl_rsim.utils.errors import DataError


@dataclass(frozen=True, slots=True)
class EvaluationQuestion:
    """A question and what scoring it takes.

    Attributes:
        id: 16 hex digits made of text and truth; a question that stands twice has "-2" behind it.
        messages: the chat, as verl's dataset has it.
        truth: the ground truth.
        data_source, ability: choose the scorer.
    """

    id: str
    messages: tuple[Mapping[str, str], ...]
    truth: str
    data_source: str
    ability: str | None


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """Questions in the order of their file.

    Attributes:
        path: the parquet file.
        sha256: of the file's rows, as in the manifest beside it.
    """

    path: Path
    sha256: str
    questions: tuple[EvaluationQuestion, ...]


def load_questions(source: str, limit: int | None = None) -> EvaluationDataset:
    """Read a parquet file, or the test split of prepared data by its name.

    Args:
        limit: takes the first so many.

    Raises:
        ConfigError: no such data.
        DataError: it holds no usable questions.
    """
    path = evaluation_file("data", source)
    rows = read_rows(path)
    seen: Counter[str] = Counter()
    questions = tuple(_question(row, path, number, seen) for number, row in enumerate(rows[:limit]))
    if not questions:
        raise DataError(f"{path}: holds no questions")
    return EvaluationDataset(path.absolute(), rows_digest(rows), questions)


def _question(row: Mapping[str, Any], path: Path, number: int, seen: Counter[str]) -> EvaluationQuestion:
    where = f"{path}: row {number}"
    messages = row.get("prompt")
    if not isinstance(messages, list) or not messages or not all(_is_message(message) for message in messages):
        raise DataError(f"{where}: prompt must be a list of messages with role and content; see docs/evaluation.md")
    if messages[-1]["role"] != "user":
        raise DataError(f"{where}: the last message of prompt must be the user's, not the {messages[-1]['role']}'s")
    truth = (row.get("reward_model") or {}).get("ground_truth")
    if truth in (None, ""):
        raise DataError(f"{where}: has no reward_model.ground_truth; give it one, or drop it")
    if not row.get("data_source"):
        raise DataError(f"{where}: has no data_source, which says how answers are scored")
    chat = tuple({"role": message["role"], "content": message["content"]} for message in messages)
    identity = hashlib.sha256(repr((chat, str(truth))).encode()).hexdigest()[:16]
    seen[identity] += 1
    if seen[identity] > 1:
        identity += f"-{seen[identity]}"
    return EvaluationQuestion(identity, chat, str(truth), str(row["data_source"]), row.get("ability"))


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def check_truths(dataset: EvaluationDataset, scorer: Scorer) -> None:
    """Make sure that every ground truth can be scored, and that the sandbox works if there is code.

    Raises:
        DataError, ConfigError, SandboxError: it cannot.
    """
    for number, question in enumerate(dataset.questions):
        try:
            if is_coding_task(question.data_source, question.ability):
                _ = scorer.code
                parse_truth(question.truth)
            else:
                scorer.math.check_truth(question.truth, question.data_source)
        except TruthError as error:
            raise DataError(f"{dataset.path}: row {number}: {error}") from None
