"""Defines the result of scoring one answer, shared by the scorers of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from verl_rsim.utils.errors import DataError


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of scoring one answer.

    Attributes:
        accuracy: 1.0 if right, else 0.0.
        answered: True if the text states an answer.
        reason: reason in a word: "right", "wrong", "no_answer", "timeout", "crash" or one that a scorer adds.
        parts: further numbers to log, e.g. the fraction of tests passed.
    """

    accuracy: float
    answered: bool
    reason: str
    parts: Mapping[str, float] = field(default_factory=dict)


class TruthError(DataError):
    """The ground truth of a row cannot be used. The row is left out and counted: a score of 0 would teach falsehood."""
