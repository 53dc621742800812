"""Filters the questions of prepared data, and counts by reason what is dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.data.overlap import MAX_EXAMPLES, NGRAM, EvaluationSet, SharedNgram, normalise
from verl_rsim.data.question import Question
from verl_rsim.utils.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Filters:
    """Settings that say which questions are dropped.

    Attributes:
        max_prompt_chars: longest prompt in characters, with its instruction; applies to all splits.
        max_prompt_tokens: longest prompt in tokens, with its instruction and chat template; applies to all splits.
        tokenizer: folder or hub id of the model that has the tokenizer.
        val_share: share of the training questions, in [0, 1), that is held out for ``val.parquet``.
        against: evaluation sets (prepared names or parquet files) whose questions are dropped from training.
        ngram: words in an n-gram; questions that share one overlap.
        drop_overlap: also drop training questions that overlap.

    Raises:
        ConfigError: a value is out of range, or one of ``max_prompt_tokens`` and ``tokenizer`` is missing.
    """

    max_prompt_chars: int | None = None
    max_prompt_tokens: int | None = None
    tokenizer: str | None = None
    val_share: float = 0.0
    against: tuple[str, ...] = ()
    ngram: int = NGRAM
    drop_overlap: bool = False

    def __post_init__(self) -> None:
        if (self.max_prompt_tokens is None) != (self.tokenizer is None):
            fix = "name both: --max-prompt-tokens 512 --tokenizer MODEL, or use --max-prompt-chars"
            raise ConfigError("max_prompt_tokens", self.max_prompt_tokens, fix)
        if not 0 <= self.val_share < 1:
            raise ConfigError("val_share", self.val_share, "must be at least 0 and below 1")
        if self.ngram < 1:
            raise ConfigError("ngram", self.ngram, "must be at least 1")


NO_FILTERS = Filters()


@dataclass(slots=True)
class Split:
    """Holds the questions of a split and counts the dropped ones.

    Attributes:
        questions: questions kept so far.
        counts: rows read (key "read"), then rows dropped by reason, in the order of the filters.
    """

    questions: list[Question]
    counts: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, is_unwanted: Callable[[Question], bool]) -> list[Question]:
        """Removes the questions for which ``is_unwanted`` returns True, and returns them."""
        kept: list[Question] = []
        dropped: list[Question] = []
        for question in self.questions:
            if is_unwanted(question):
                dropped.append(question)
            else:
                kept.append(question)
        self.questions = kept
        if dropped:
            self.counts[reason] = len(dropped)
        return dropped

    def keep_first(self, reason: str, count: int | None) -> None:
        """Keeps the first ``count`` questions; None keeps all."""
        if count is not None and len(self.questions) > count:
            self.counts[reason] = len(self.questions) - count
            self.questions = self.questions[:count]

    def keep_sample(self, reason: str, count: int | None, seed: int) -> None:
        """Keeps a random sample of ``count`` questions in their order; None keeps all.

        The sample depends on the seed and the questions' texts alone. A larger sample contains the smaller ones.
        """
        if count is not None and len(self.questions) > count:
            by_hash = sorted(range(len(self.questions)), key=lambda index: hash_fraction(self.questions[index], seed))
            self.counts[reason] = len(self.questions) - count
            self.questions = [self.questions[index] for index in sorted(by_hash[:count])]


def hash_fraction(question: Question, seed: int) -> float:
    """Returns a hash of seed and text in [0, 1): the same in any order of rows, any process and any dataset."""
    # Not hash(): Python salts it anew in every process, and splits must be the same on every machine.
    sha = hashlib.sha256(f"{seed}/{normalise(question.text)}".encode())
    return int.from_bytes(sha.digest()[:6], "big") / 2**48


def drop_long_prompts(split: Split, filters: Filters, prompt: Callable[[Question], str]) -> None:
    """Drops the questions whose prompt is longer than the filters allow."""
    max_chars, max_tokens = filters.max_prompt_chars, filters.max_prompt_tokens
    if max_chars:
        split.drop(f"over {max_chars} characters", lambda question: len(prompt(question)) > max_chars)
    if max_tokens:
        count_tokens = token_counter(str(filters.tokenizer))
        split.drop(f"over {max_tokens} tokens", lambda question: count_tokens(prompt(question)) > max_tokens)


def token_counter(tokenizer: str) -> Callable[[str], int]:
    """Returns a function that counts a prompt's tokens in the tokenizer's chat template, as verl counts them.

    Raises:
        DataError: the tokenizer cannot be loaded, or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{tokenizer}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from None
    if not loaded.chat_template:
        raise DataError(f"{tokenizer}: its tokenizer has no chat template; name the model that will be trained")

    def count(prompt: str) -> int:
        messages = [{"role": "user", "content": prompt}]
        text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(loaded.encode(text, add_special_tokens=False))

    return count


def drop_evaluation_questions(train: Split, sets: Sequence[EvaluationSet], drop_overlap: bool) -> list[dict[str, Any]]:
    """Drops the training questions that are in an evaluation set, and reports the overlap of the others.

    Returns:
        For each set, as the manifest has it: its name, words in an n-gram, number of overlapping rows, a few examples.
    """
    reports = []
    for evaluation_set in sets:
        _drop_contained(train, evaluation_set)
        shared = _shared_ngrams(train, evaluation_set)
        rows = sum(question.text in shared for question in train.questions)
        if drop_overlap:
            _drop_overlapping(train, evaluation_set, shared)
        examples = [
            {"shared": ngram.words, "train": text[:300], "evaluation": ngram.evaluation_question[:300]}
            for text, ngram in list(shared.items())[:MAX_EXAMPLES]
        ]
        report = {"against": evaluation_set.name, "ngram": evaluation_set.ngram, "rows": rows, "examples": examples}
        reports.append(report)
    return reports


def _drop_contained(train: Split, evaluation_set: EvaluationSet) -> None:
    train.drop(f"also in {evaluation_set.name}", lambda question: evaluation_set.contains(question.text))


def _shared_ngrams(train: Split, evaluation_set: EvaluationSet) -> dict[str, SharedNgram]:
    """Returns the first shared n-gram of each training question that has one, by the question's text."""
    shared: dict[str, SharedNgram] = {}
    for question in train.questions:
        ngram = evaluation_set.find_shared_ngram(question.text)
        if ngram is not None:
            shared[question.text] = ngram
    return shared


def _drop_overlapping(train: Split, evaluation_set: EvaluationSet, shared: Mapping[str, SharedNgram]) -> None:
    train.drop(f"overlaps with {evaluation_set.name}", lambda question: question.text in shared)
