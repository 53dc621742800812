"""Filters a dataset's questions and divides them into the splits ``train``, ``val`` and ``test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verl_rsim.data.filters import Filters, Split, drop_evaluation_questions, drop_long_prompts, hash_fraction
from verl_rsim.data.overlap import EvaluationSet, normalise, read_evaluation_set
from verl_rsim.data.published import LoadedDataset
from verl_rsim.data.question import Question
from verl_rsim.data.verl_row import ANSWER_TYPES, build_prompt
from verl_rsim.reward.code_grading.program_tests import parse_truth
from verl_rsim.reward.verdict import TruthError
from verl_rsim.utils.errors import DataError

ALL = "all"
"""Name of the one split of a source without splits."""


def split_dataset(
    loaded: LoadedDataset,
    name: str,
    train: int | None,
    test: int | None,
    seed: int,
    filters: Filters,
    instruction: str | None,
) -> tuple[dict[str, Split], list[dict[str, Any]]]:
    """Filters questions and divides them into ``train``, ``val`` (with ``filters.val_share``) and ``test``.

    An evaluation set gets a ``train`` split only if ``train`` is given. Training questions that are also in the test
    split are dropped.

    Args:
        loaded: the questions as they were read.
        name: ``data_source`` of the rows.
        train: most training questions; None for all.
        test: most test questions; None for all.
        seed: seed of the choice of questions.
        filters: what to drop.
        instruction: replaces the default instruction, see :func:`build_prompt`.

    Returns:
        The splits, and a report of the overlap with each evaluation set of ``filters.against``.

    Raises:
        DataError: a split would be empty.
    """
    splits = {}
    for split_name, questions in loaded.questions.items():
        split = splits[split_name] = Split(questions, {"read": loaded.read[split_name]})
        without_text_or_answer = split.counts["read"] - len(questions)
        if without_text_or_answer:
            reason = "cannot be used" if loaded.bad else "no text, or no answer"
            split.counts[reason] = without_text_or_answer
        _drop_unusable(split, name)
        drop_long_prompts(split, filters, lambda question: build_prompt(question, name, instruction))
    if ALL in splits:
        splits = _hold_out_test(splits[ALL], train, test)
    elif "train" not in splits and train is not None:
        splits = _take_train_from_test(splits["test"], train, seed)
    overlap = _filter_train(splits, train, seed, filters) if "train" in splits else []
    splits["test"].keep_sample("over --test", test, seed)
    for split_name, split in splits.items():
        if not split.questions:
            raise DataError(f"{name}: nothing is left of {split_name}: {split.counts}")
    return splits, overlap


def _drop_unusable(split: Split, name: str) -> None:
    """Drops questions whose ground truth cannot be scored, and prints the first one's error."""
    first_error = ""

    def is_unusable(question: Question) -> bool:
        nonlocal first_error
        try:
            if question.ability == "code":
                parse_truth(question.answer)
            else:
                ANSWER_TYPES.check_truth(question.answer, name)
        except TruthError as error:
            first_error = first_error or f"{error} (question {question.text[:80]!r})"
            return True
        return False

    total = len(split.questions)
    dropped = split.drop("ground truth cannot be scored", is_unusable)
    if not split.questions:
        raise DataError(
            f"{name}: no question has a ground truth that can be scored: {first_error or 'there are no questions'}"
        )
    if dropped:
        print(f"{name}: dropped {len(dropped)} of {total} questions; the first: {first_error}")


def _hold_out_test(whole: Split, train: int | None, test: int | None) -> dict[str, Split]:
    """Takes the first questions, a fifth of all at most, for ``test`` and the next ones for ``train``."""
    held_out = min(test or len(whole.questions), max(1, len(whole.questions) // 5))
    rest = whole.questions[held_out:]
    splits = {
        "train": Split(rest, {**whole.counts, "held out for test": held_out}),
        "test": Split(whole.questions[:held_out], {**whole.counts, "left for train": len(rest)}),
    }
    splits["train"].keep_first("over --train", train)
    return splits


def _take_train_from_test(test: Split, train: int, seed: int) -> dict[str, Split]:
    """Moves a sample of an evaluation set's questions to ``train``."""
    taken = Split(test.questions, dict(test.counts))
    taken.keep_sample("left for test", train, seed)
    chosen = {normalise(question.text) for question in taken.questions}
    test.drop("taken for train", lambda question: normalise(question.text) in chosen)
    return {"train": taken, "test": test}


def _filter_train(splits: dict[str, Split], train: int | None, seed: int, filters: Filters) -> list[dict[str, Any]]:
    """Drops test and evaluation questions from ``train`` and holds out ``val``; returns the report of the overlap."""
    split = splits["train"]
    test_set = EvaluationSet("its test split", [question.text for question in splits["test"].questions], filters.ngram)
    split.drop("also in its test split", lambda question: test_set.contains(question.text))
    evaluation_sets = [read_evaluation_set(name, filters.ngram) for name in filters.against]
    overlap = drop_evaluation_questions(split, evaluation_sets, filters.drop_overlap)
    if filters.val_share:
        val = split.drop("held out for val", lambda question: hash_fraction(question, seed) < filters.val_share)
        splits["val"] = Split(val, {"read": len(val)})
    # Sampled last: a larger --train keeps the questions of a smaller one, whatever the filters drop.
    split.keep_sample("over --train", train, seed)
    return overlap


def describe_splits(splits: Mapping[str, Split], overlap: list[dict[str, Any]]) -> list[str]:
    """Returns lines for the user that say how many rows were read, dropped and written."""
    lines = []
    for name, split in splits.items():
        dropped = [f"{count} {reason}" for reason, count in split.counts.items() if reason != "read"]
        lines.append(", ".join([f"{name}: {split.counts['read']} read", *dropped, f"{len(split.questions)} written"]))
    for report in overlap:
        shared = f"share {report['ngram']} words in a row with one of {report['against']}"
        lines.append(f"{report['rows']} training questions {shared}")
        lines += [f"  ... {example['shared']} ..." for example in report["examples"]]
    return lines
