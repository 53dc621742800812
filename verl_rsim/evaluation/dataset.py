"""Loads the questions of an evaluation from verl's rows, and checks them before any model is loaded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.data.ground_truths import TruthRules
from verl_rsim.data.row_reader import PlayableRow, RowError, RowReader
from verl_rsim.data.rows import evaluation_file, read_rows, rows_digest
from verl_rsim.reward.config import ScoringConfig
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.scorer import Scorer
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
        path: the file.
        sha256: hash of the file's rows, as in the manifest beside it.
        questions: the questions.
        has_programs: True if answers to some questions are run as programs.
    """

    path: Path
    sha256: str
    questions: tuple[EvaluationQuestion, ...]
    has_programs: bool = False


def load_questions(
    source: str,
    limit: int | None = None,
    scoring: ScoringConfig = ScoringConfig(),  # noqa: B008 (it is frozen)
) -> EvaluationDataset:
    """Loads questions from a file of verl's rows, or from the test split of prepared data by its name.

    Args:
        source: a path that ends with .parquet, .json or .jsonl, or the name of prepared data.
        limit: number of questions to load from the start of the file; None for all.
        scoring: says how answers are compared, and so which ground truths can be used.

    Raises:
        ConfigError: there is no such data.
        DataError: the file has no rows, or a row cannot be played or scored.
    """
    path = evaluation_file("data", source)
    rows = read_rows(path)
    types = {name: AnswerType(kind) for name, kind in scoring.answer_types.items()}
    reader = RowReader(TruthRules(AnswerTypes(types)))
    occurrences: Counter[str] = Counter()
    questions = []
    has_programs = False
    for number, row in enumerate(rows[:limit]):
        try:
            playable = reader.read(row)
        except RowError as error:
            raise DataError(str(error.at(path, number))) from None
        has_programs = has_programs or playable.is_code
        questions.append(_question(playable, occurrences))
    if not questions:
        raise DataError(f"{path}: holds no questions")
    return EvaluationDataset(path.absolute(), rows_digest(rows), tuple(questions), has_programs)


def _question(row: PlayableRow, occurrences: Counter[str]) -> EvaluationQuestion:
    identity = hashlib.sha256(repr((row.messages, row.truth)).encode()).hexdigest()[:16]
    occurrences[identity] += 1
    if occurrences[identity] > 1:
        identity += f"-{occurrences[identity]}"
    return EvaluationQuestion(identity, row.messages, row.truth, row.data_source, row.ability)


def check_sandbox(dataset: EvaluationDataset, scorer: Scorer) -> None:
    """Checks that the sandbox works if answers of a dataset are run as programs.

    Raises:
        ConfigError, SandboxError: the sandbox cannot be used.
    """
    if dataset.has_programs:
        _ = scorer.code  # builds the sandbox on first access, and so checks it
