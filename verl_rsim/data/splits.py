"""Questions of a source to the splits that are written: what cannot be used is left out, what is known held apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verl_rsim.data.filters import Filters, Split, drop_known, drop_long, rank
from verl_rsim.data.overlap import EvaluationSet, normalised, read_evaluation_set
from verl_rsim.data.published import Loaded
from verl_rsim.data.question import Question
from verl_rsim.data.verl_row import TYPES, prompt_of
from verl_rsim.reward.code_grading.program_tests import parse_truth
from verl_rsim.reward.verdict import TruthError
from verl_rsim.utils.errors import DataError

ALL = "all"
"""The split of a source that has none."""


def divide(
    loaded: Loaded, name: str, train: int | None, test: int | None, seed: int, filters: Filters, instruction: str | None
) -> tuple[dict[str, Split], list[dict[str, Any]]]:
    """Filter questions and split them: ``train``, ``val`` if asked for, ``test``.

    An evaluation set has ``train`` only if ``train`` asks for it. A training question that is in the test split is
    dropped.

    Args:
        name: the rows' ``data_source``.
        train, test: how many of each at most.
        seed: chooses them.

    Returns:
        The splits, and what overlaps with the evaluation sets of ``filters.against``.

    Raises:
        DataError: a split would be empty.
    """
    splits = {}
    for split_name, questions in loaded.questions.items():
        split = splits[split_name] = Split(questions, {"read": loaded.read[split_name]})
        if unasked := split.counts["read"] - len(questions):
            split.counts["no text, or no answer"] = unasked
        _drop_unusable(split, name)
        drop_long(split, filters, lambda q: prompt_of(q, name, instruction))
    if ALL in splits:
        splits = _hold_out(splits[ALL], train, test)
    elif "train" not in splits and train is not None:
        splits = _take_for_train(splits["test"], train, seed)
    overlap = _clean_train(splits, train, seed, filters) if "train" in splits else []
    splits["test"].sample("over --test", test, seed)
    for split_name, split in splits.items():
        if not split.questions:
            raise DataError(f"{name}: nothing is left of {split_name}: {split.counts}")
    return splits, overlap


def _drop_unusable(split: Split, name: str) -> None:
    """Take out questions whose ground truth cannot be scored, and say why the first one cannot."""
    first = ""

    def is_unusable(question: Question) -> bool:
        nonlocal first
        try:
            if question.ability == "code":
                parse_truth(question.answer)
            else:
                TYPES.check_truth(question.answer, name)
        except TruthError as error:
            first = first or f"{error} (question {question.text[:80]!r})"
            return True
        return False

    there = len(split.questions)
    dropped = split.drop("ground truth cannot be scored", is_unusable)
    if not split.questions:
        raise DataError(f"{name}: no question has a ground truth that can be used: {first or 'there are no questions'}")
    if dropped:
        print(f"{name}: dropped {len(dropped)} of {there} questions; the first: {first}")


def _hold_out(whole: Split, train: int | None, test: int | None) -> dict[str, Split]:
    """The first questions for the test, a fifth of all at most; the next for training."""
    held_out = min(test or len(whole.questions), max(1, len(whole.questions) // 5))
    rest = whole.questions[held_out:]
    splits = {
        "train": Split(rest, {**whole.counts, "held out for test": held_out}),
        "test": Split(whole.questions[:held_out], {**whole.counts, "left for train": len(rest)}),
    }
    splits["train"].first("over --train", train)
    return splits


def _take_for_train(test: Split, train: int, seed: int) -> dict[str, Split]:
    taken = Split(test.questions, dict(test.counts))
    taken.sample("left for test", train, seed)
    chosen = {normalised(question.text) for question in taken.questions}
    test.drop("taken for train", lambda q: normalised(q.text) in chosen)
    return {"train": taken, "test": test}


def _clean_train(splits: dict[str, Split], train: int | None, seed: int, filters: Filters) -> list[dict[str, Any]]:
    """Take test questions out of ``train``, hold out ``val``; what overlaps with the sets of ``filters.against``."""
    split, tests = splits["train"], [question.text for question in splits["test"].questions]
    own = EvaluationSet("its test split", tests, filters.ngram)
    split.drop("also in its test split", lambda q: own.holds(q.text))
    known = [read_evaluation_set(name, filters.ngram) for name in filters.against]
    overlap = drop_known(split, known, filters.drop_overlap)
    if filters.val_share:
        val = split.drop("held out for val", lambda q: rank(q, seed) < filters.val_share)
        splits["val"] = Split(val, {"read": len(val)})
    split.sample("over --train", train, seed)
    return overlap


def told(splits: Mapping[str, Split], overlap: list[dict[str, Any]]) -> list[str]:
    """What was read, dropped and written, in words."""
    lines = []
    for name, split in splits.items():
        dropped = [f"{count} {why}" for why, count in split.counts.items() if why != "read"]
        lines.append(", ".join([f"{name}: {split.counts['read']} read", *dropped, f"{len(split.questions)} written"]))
    for each in overlap:
        shared = f"share {each['ngram']} words in a row with one of {each['against']}"
        lines.append(f"{each['rows']} training questions {shared}")
        lines += [f"  ... {example['shared']} ..." for example in each["examples"]]
    return lines
