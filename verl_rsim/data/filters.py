"""What is left out of prepared data, counted by reason: too long, in an evaluation set, held out, not asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.data.overlap import EXAMPLES, NGRAM, EvaluationSet, Shared, normalised
from verl_rsim.data.question import Question
from verl_rsim.utils.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Filters:
    """What is to be left out.

    Attributes:
        max_prompt_chars, max_prompt_tokens: of a prompt, instruction (and chat template) included; all splits.
        tokenizer: folder or hub id of the model whose tokens are counted.
        val_share: of the training questions, in [0, 1), held out for ``val.parquet``.
        against: evaluation sets whose questions are dropped from training: prepared names or parquet files.
        ngram: words in a run that counts as overlap.
        drop_overlap: drop training questions that share such a run, too.
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
    """The questions of a split, and what became of the others.

    Attributes:
        counts: rows "read", then rows dropped, by reason.
    """

    questions: list[Question]
    counts: dict[str, int] = field(default_factory=dict)

    def drop(self, why: str, unwanted: Callable[[Question], bool]) -> list[Question]:
        """Take out the unwanted questions, and return them."""
        kept: list[Question] = []
        dropped: list[Question] = []
        for question in self.questions:
            (dropped if unwanted(question) else kept).append(question)
        self.questions = kept
        if dropped:
            self.counts[why] = len(dropped)
        return dropped

    def first(self, why: str, count: int | None) -> None:
        """Keep the first so many."""
        if count is not None and len(self.questions) > count:
            self.counts[why] = len(self.questions) - count
            self.questions = self.questions[:count]

    def sample(self, why: str, count: int | None, seed: int) -> None:
        """Keep so many, chosen by the seed and each question's text alone, in their order."""
        if count is not None and len(self.questions) > count:
            first = sorted(range(len(self.questions)), key=lambda index: rank(self.questions[index], seed))[:count]
            self.counts[why] = len(self.questions) - count
            self.questions = [self.questions[index] for index in sorted(first)]


def rank(question: Question, seed: int) -> float:
    """A question's place in [0, 1) under a seed: the same in any order, any process, any set."""
    sha = hashlib.sha256(f"{seed}/{normalised(question.text)}".encode())
    return int.from_bytes(sha.digest()[:6], "big") / 2**48


def drop_long(split: Split, filters: Filters, prompt: Callable[[Question], str]) -> None:
    """Take out questions whose prompt is too long."""
    if filters.max_prompt_chars:
        split.drop(
            f"over {filters.max_prompt_chars} characters", lambda q: len(prompt(q)) > (filters.max_prompt_chars or 0)
        )
    if filters.max_prompt_tokens:
        count = token_counter(str(filters.tokenizer))
        split.drop(
            f"over {filters.max_prompt_tokens} tokens", lambda q: count(prompt(q)) > (filters.max_prompt_tokens or 0)
        )


def token_counter(tokenizer: str) -> Callable[[str], int]:
    """Counts a prompt's tokens in the tokenizer's chat template, as verl does.

    Raises:
        DataError: there is no such tokenizer, or it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{tokenizer}: no tokenizer can be loaded: {str(error).splitlines()[0]}") from None
    if not loaded.chat_template:
        raise DataError(f"{tokenizer}: its tokenizer has no chat template; name that of the model to be trained")

    def count(prompt: str) -> int:
        messages = [{"role": "user", "content": prompt}]
        text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(loaded.encode(text, add_special_tokens=False))

    return count


def drop_known(train: Split, sets: Sequence[EvaluationSet], drop_overlap: bool) -> list[dict[str, Any]]:
    """Take out training questions that stand in an evaluation set; report what overlaps with it.

    Returns:
        For each set: its name, the words in a run, training rows that share one, and a few of them.
    """
    reports = []
    for known in sets:
        train.drop(f"also in {known.name}", lambda q, known=known: known.holds(q.text))  # type: ignore[misc]
        shared: dict[str, Shared] = {}
        for question in train.questions:
            if found := known.shared(question.text):
                shared[question.text] = found
        rows = sum(question.text in shared for question in train.questions)
        if drop_overlap:
            train.drop(f"overlaps with {known.name}", lambda q, shared=shared: q.text in shared)  # type: ignore[misc]
        examples = [
            {"shared": each.words, "train": text[:300], "evaluation": each.evaluation_question[:300]}
            for text, each in list(shared.items())[:EXAMPLES]
        ]
        reports.append({"against": known.name, "ngram": known.ngram, "rows": rows, "examples": examples})
    return reports
