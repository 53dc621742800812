"""Finds training questions that occur in an evaluation set, as a whole or in a run of n words (an n-gram).

Questions are the same if they differ only in case, Unicode form and spacing. N-grams (13 words by default) are compared
without punctuation, so questions generated from one template overlap by construction. A question of fewer than n words
has no n-gram and never overlaps.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_rsim.data.rows import evaluation_file, read_rows

NGRAM = 13
MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class SharedNgram:
    """Holds an n-gram that a training question shares with an evaluation question."""

    words: str
    evaluation_question: str


def normalise(question: str) -> str:
    """Returns a question in lower case and NFKC form, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


class EvaluationSet:
    """Indexes the questions of an evaluation set for look-ups.

    Args:
        name: the set as the user named it.
        questions: texts of its questions.
        ngram: words in an n-gram.
    """

    def __init__(self, name: str, questions: Sequence[str], ngram: int = NGRAM):
        self.name, self.questions, self.ngram = name, questions, ngram
        self._normalised = frozenset(map(normalise, questions))
        # Maps an n-gram's hash to its question's index: hashes take a tenth of the memory that the texts would take.
        self._ngrams: dict[int, int] = {}
        for index, question in enumerate(questions):
            for words in _ngrams(question, ngram):
                self._ngrams.setdefault(hash(words), index)

    def contains(self, question: str) -> bool:
        """Returns True if the question is in the set."""
        return normalise(question) in self._normalised

    def find_shared_ngram(self, question: str) -> SharedNgram | None:
        """Returns the first n-gram that a question shares with the set, or None."""
        for words in _ngrams(question, self.ngram):
            index = self._ngrams.get(hash(words))
            # Equal hashes do not prove equal words, so the indexed question's text is compared as well.
            if index is not None and words in _ngrams(self.questions[index], self.ngram):
                return SharedNgram(words, self.questions[index])
        return None


def _ngrams(question: str, ngram: int) -> Iterator[str]:
    words = re.findall(r"\w+", normalise(question))
    return (" ".join(words[start : start + ngram]) for start in range(len(words) - ngram + 1))


def question_of(row: Mapping[str, Any]) -> str:
    """Returns the question of a verl row: ``extra_info.question``, else the whole last message of its prompt."""
    return (row.get("extra_info") or {}).get("question") or row["prompt"][-1]["content"]


def read_evaluation_set(name: str, ngram: int = NGRAM) -> EvaluationSet:
    """Reads the test split of prepared data by its name, or a parquet file of verl's rows.

    Raises:
        ConfigError: there is no such file.
        DataError: the file cannot be read as parquet.
    """
    return EvaluationSet(name, [question_of(row) for row in read_rows(evaluation_file("against", name))], ngram)
