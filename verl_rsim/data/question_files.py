"""Reads questions from the user's own files: parquet, JSON, JSON lines and csv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.data.ground_truths import TruthRules, answer_of_solution
from verl_rsim.data.messages import FormError, read_chat
from verl_rsim.data.question import Question
from verl_rsim.data.row_reader import BadRow, RowError, describe
from verl_rsim.data.rows import SUFFIXES, iter_rows
from verl_rsim.data.verl_row import ANSWER_TYPES
from verl_rsim.utils.errors import DataError


@dataclass(slots=True)
class QuestionFile:
    """Holds what was read from a file.

    Attributes:
        questions: questions that can be asked and scored.
        bad: the other rows.
    """

    questions: list[Question] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Returns the number of rows of the file."""
        return len(self.questions) + len(self.bad)


def is_file_name(source: str) -> bool:
    """Returns True if a source is named as a file rather than as a dataset."""
    return source.endswith(SUFFIXES)


def read_question_file(path: Path, question: str, answer: str, ability: str = "math") -> QuestionFile:
    """Reads the questions of a file.

    Args:
        path: the file.
        question: column of the questions: text, or a list of messages; a dot leads into a nested column.
        answer: column of the ground truths, or of worked solutions that mark their answer with a box or ``####``.
        ability: "code" if the answers are tests.

    Raises:
        DataError: there is no such file or column, or no row can be used.
    """
    found = QuestionFile()
    rules = TruthRules(ANSWER_TYPES, "rsim_code" if ability == "code" else "rsim_math")
    for number, row in enumerate(iter_rows(path)):
        if number == 0 and not (_has(row, question) and _has(row, answer)):
            fix = "name them with --question and --answer"
            raise DataError(f"{path}: needs the columns {question!r} and {answer!r}, has {sorted(row)}; {fix}")
        try:
            found.questions.append(_question(row, question, answer, ability, rules, path.stem))
        except RowError as error:
            found.bad.append(error.at(path, number))
    if not found.rows:
        raise DataError(f"{path}: has no rows")
    if not found.questions:
        raise DataError(f"{path}: none of {found.rows} rows can be used; {describe(found.bad)}")
    return found


def _question(
    row: Mapping[str, Any], question: str, answer: str, ability: str, rules: TruthRules, name: str
) -> Question:
    asked, truth = _cell(row, question), _cell(row, answer)
    try:
        chat = read_chat(asked)
    except FormError as error:
        raise RowError(f"{question}{error.place}", asked, str(error)) from None
    try:
        if isinstance(truth, str) and ability != "code":
            truth = answer_of_solution(truth)
        truth = rules.read(truth, name, ability)
    except FormError as error:
        raise RowError(answer, truth, str(error)) from None
    *earlier, last = chat.messages
    context = tuple((message["role"], message["content"]) for message in earlier)
    return Question(last["content"], truth, ability, context)


def _has(row: Mapping[str, Any], column: str) -> bool:
    return column in row or column.partition(".")[0] in row


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """Returns the value of a column; a dot leads into a nested column, unless the column's own name has one."""
    if column in row:
        return row[column]
    first, _, rest = column.partition(".")
    inner = row.get(first)
    return _cell(inner, rest) if rest and isinstance(inner, Mapping) else None
