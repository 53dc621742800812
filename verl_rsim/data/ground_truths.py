"""Reads ground truths from the forms in which datasets hold them, and checks them by the rules that score answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_rsim.data.messages import FormError
from verl_rsim.reward.code_grading.program_tests import parse_truth
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.boxes import last_boxed
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.equivalence import same_quantity
from verl_rsim.reward.math_grading.normalize import tidy
from verl_rsim.reward.scorer import is_coding_task
from verl_rsim.reward.verdict import TruthError

WRAPPERS = ("value", "target", "ground_truth", "answer")
"""Keys under which datasets wrap a ground truth."""
_MISSING = frozenset({"", "nan", "none", "null", "<na>"})
"""Texts, in lower case, that programs write for a missing value."""
_MAX_PROSE = 300
"""Characters of an answer; a longer text is taken for a worked solution."""


@dataclass(frozen=True, slots=True)
class TruthRules:
    """Says how the ground truths of a dataset are used.

    Attributes:
        types: types of the sources' answers.
        manager: reward manager that scores the answers. Truths are checked for those of this package, ``rsim``,
            ``rsim_math`` and ``rsim_code``; others read them in ways of their own.
    """

    types: AnswerTypes
    manager: str = "rsim"

    @property
    def checked(self) -> bool:
        """Returns True if the manager is one of this package."""
        return self.manager in ("rsim", "rsim_math", "rsim_code")

    def is_code(self, data_source: str, ability: str | None) -> bool:
        """Returns True if the row's answers are run as programs."""
        return self.manager == "rsim_code" or (self.manager == "rsim" and is_coding_task(data_source, ability))

    def read(self, value: Any, data_source: str, ability: str | None) -> str:
        """Returns a ground truth as the text that the scorer takes.

        Args:
            value: a text, a number, tests as an object, a truth under one of :data:`WRAPPERS`, or a list of spellings
                of one answer.
            data_source, ability: columns of the row, which choose the scorer.

        Raises:
            FormError: no answer could be scored by it.
        """
        if self.is_code(data_source, ability):
            truth = value if isinstance(value, str) else json.dumps(_without_nulls(value))
            if not truth or value is None:
                raise FormError("has no tests; give the row some, or drop it", "", value)
            return _checked(parse_truth, truth)
        kind = self.types.of(data_source)
        truth = _as_text(_unwrapped(value, kind), kind)
        return _checked(self.types.check_truth, truth, kind)


def _checked(check: Callable[..., object], truth: str, *arguments: Any) -> str:
    try:
        check(truth, *arguments)
    except TruthError as error:
        raise FormError(str(error), "", truth) from None
    return truth


def _without_nulls(value: Any) -> Any:
    """Returns a value without empty keys: a parquet file gives every object the keys of all."""
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if item is not None}
    return value


def _unwrapped(value: Any, kind: AnswerType) -> Any:
    """Returns the single answer in a value that wraps it, or that lists spellings of it."""
    if isinstance(value, str) and value.lstrip()[:2] in ('["', '{"'):
        value = _parsed(value)
    if isinstance(value, Mapping):
        filled = _without_nulls(value)
        if len(filled) != 1 or next(iter(filled)) not in WRAPPERS:
            raise FormError("is an object with several keys; write the answer itself, as text", "", value)
        return _unwrapped(next(iter(filled.values())), kind)
    if isinstance(value, str) or not isinstance(value, Sequence) or kind in (AnswerType.LIST, AnswerType.AUTO):
        return value
    return _one_of([_as_text(_unwrapped(item, kind), kind) for item in value], value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # brackets of mathematics
        return text


def _one_of(spellings: list[str], value: Any) -> str:
    """Returns the first of several spellings of one answer."""
    if not spellings:
        raise FormError("is an empty list; give the row an answer, or drop it", "", value)
    first = tidy(spellings[0])
    for other in spellings[1:]:
        if tidy(other) != first and not same_quantity(tidy(other), first):
            reason = f"lists different answers, {spellings[0]!r} and {other!r}; write the one that is right"
            raise FormError(reason, "", value)
    return spellings[0]


def _as_text(value: Any, kind: AnswerType) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise FormError(
            "is not a number, which programs write for a missing answer; give one, or drop the row", "", value
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = json.dumps(value)
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if text.lower() in _MISSING and not (text and kind is AnswerType.STRING):
        raise FormError("is no answer; give the row one, or drop it", "", value)
    return value if isinstance(value, str) else text


def answer_of_solution(text: str) -> str:
    """Returns the answer that a worked solution states: what follows ``####``, or its last box.

    Other texts are returned as they are.

    Raises:
        FormError: the text is a worked solution that marks no answer.
    """
    _, mark, after = text.rpartition("####")
    if mark and after.strip():
        # GSM8K writes thousands with commas.
        return re.sub(r"(?<=\d),(?=\d{3}\b)", "", after.strip())
    boxed = last_boxed(text)
    if boxed:
        return boxed
    if len(text) > _MAX_PROSE or "\n" in text.strip():
        reason = (
            "is a text that marks no answer with \\boxed{...} or ####; name the column of the answers with --answer"
        )
        raise FormError(reason, "", text)
    return text
