"""Converts answers to one spelling, so that equal answers count as one vote of maj@k."""

from __future__ import annotations

from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import squash, tidy, words
from verl_rsim.reward.math_grading.quantities import quantity


def canonical_answer(answer: str, kind: AnswerType) -> str | None:
    """Returns an extracted answer in its canonical spelling; None if nothing is left of it, or it is not of its type.

    1,000 and 1000.0 have the same spelling, as have (B) and B. Answers that only a computer algebra system knows to be
    equal have different ones.
    """
    plain = tidy(answer)
    if not plain:
        return None
    if kind is AnswerType.OPTION:
        return option(plain)
    if kind in (AnswerType.BOOL, AnswerType.YES_NO):
        value = truth_value(plain)
        return None if value is None else str(value)
    if kind in (AnswerType.STRING, AnswerType.DATE):
        return words(plain)
    number = quantity(plain)
    if number:
        return f"{number.value} {number.currency}{number.unit}".strip()
    return squash(plain)
