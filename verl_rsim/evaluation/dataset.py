"""Loads the questions of an evaluation from verl's parquet rows, and checks them before any model is loaded."""

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
    """Holds a question and the fields that its scoring needs.

    Attributes:
        id: 16 hex digits, a hash of text and truth; the second occurrence of a question gets the suffix "-2".
        messages: the chat, as in verl's dataset.
        truth: the ground truth.
        data_source, ability: fields of the row that choose the scorer.
    """

    id: str
    messages: tuple[Mapping[str, str], ...]
    truth: str
    data_source: str
    ability: str | None


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """Holds the questions of an evaluation in the order of their file.

    Attributes:
        path: the parquet file.
        sha256: hash of the file's rows, as in the manifest beside it.
        questions: the questions.
    """

    path: Path
    sha256: str
    questions: tuple[EvaluationQuestion, ...]


def load_questions(source: str, limit: int | None = None) -> EvaluationDataset:
    """Loads questions from a parquet file, or from the test split of prepared data by its name.

    Args:
        source: a path that ends with .parquet, or the name of prepared data.
        limit: number of questions to load from the start of the file; None for all.

    Raises:
        ConfigError: there is no such data.
        DataError: the file has no rows, or a row is malformed.
    """
    path = evaluation_file("data", source)
    rows = read_rows(path)
    occurrences: Counter[str] = Counter()
    questions = tuple(_question(row, path, number, occurrences) for number, row in enumerate(rows[:limit]))
    if not questions:
        raise DataError(f"{path}: holds no questions")
    return EvaluationDataset(path.absolute(), rows_digest(rows), questions)


def _question(row: Mapping[str, Any], path: Path, number: int, occurrences: Counter[str]) -> EvaluationQuestion:
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
    occurrences[identity] += 1
    if occurrences[identity] > 1:
        identity += f"-{occurrences[identity]}"
    return EvaluationQuestion(identity, chat, str(truth), str(row["data_source"]), row.get("ability"))


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def check_truths(dataset: EvaluationDataset, scorer: Scorer) -> None:
    """Checks that every ground truth can be scored, and that the sandbox works if there are coding tasks.

    Raises:
        DataError: a ground truth cannot be scored.
        ConfigError, SandboxError: the sandbox cannot be used.
    """
    for number, question in enumerate(dataset.questions):
        try:
            if is_coding_task(question.data_source, question.ability):
                _ = scorer.code  # builds the sandbox on first access, and so checks it
                parse_truth(question.truth)
            else:
                scorer.math.check_truth(question.truth, question.data_source)
        except TruthError as error:
            raise DataError(f"{dataset.path}: row {number}: {error}") from None
