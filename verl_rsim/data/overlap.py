"""Which training questions stand in an evaluation set: word for word, or in a long run of words.

Exact up to case, Unicode form and spacing. A run of n words (an n-gram, 13 as is usual) is compared without
punctuation, so that made-up questions from one pattern overlap by nature; questions of fewer words have none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_rsim.data.rows import evaluation_file, read_rows

NGRAM = 13
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Shared:
    """A run of words that a training question shares with an evaluation question."""

    words: str
    evaluation_question: str


def normalised(question: str) -> str:
    """A question up to case, Unicode form and spacing."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


class EvaluationSet:
    """The questions of an evaluation set, for look-ups.

    Args:
        name: as the user gave it.
        questions: their texts.
        ngram: words in a run.
    """

    def __init__(self, name: str, questions: Sequence[str], ngram: int = NGRAM):
        self.name, self.questions, self.ngram = name, questions, ngram
        self._exact = frozenset(map(normalised, questions))
        self._runs: dict[int, int] = {}  # a run's hash, a tenth of its text in memory, to the question it is from
        for index, question in enumerate(questions):
            for run in _runs(question, ngram):
                self._runs.setdefault(hash(run), index)

    def holds(self, question: str) -> bool:
        """Whether a question stands in the set."""
        return normalised(question) in self._exact

    def shared(self, question: str) -> Shared | None:
        """The first run of words that a question shares with the set."""
        for run in _runs(question, self.ngram):
            found = self._runs.get(hash(run))
            if found is not None and run in _runs(self.questions[found], self.ngram):
                return Shared(run, self.questions[found])
        return None


def _runs(question: str, ngram: int) -> Iterator[str]:
    words = re.findall(r"\w+", normalised(question))
    return (" ".join(words[start : start + ngram]) for start in range(len(words) - ngram + 1))


def question_of(row: Mapping[str, Any]) -> str:
    """What a verl row asks: ``extra_info.question``, else its last message, instruction and all."""
    return (row.get("extra_info") or {}).get("question") or row["prompt"][-1]["content"]


def read_evaluation_set(name: str, ngram: int = NGRAM) -> EvaluationSet:
    """Prepared data by name (its test split), or a parquet file of verl's rows.

    Raises:
        ConfigError, DataError: there is none.
    """
    return EvaluationSet(name, [question_of(row) for row in read_rows(evaluation_file("against", name))], ngram)
