"""What a scorer says of one answer; shared by the scorers of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from verl_rsim.utils.errors import DataError


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one answer.

    Attributes:
        accuracy: 1.0 if right, else 0.0.
        answered: whether an answer was found in the text.
        reason: in a word or two why: "right", "wrong", "no_answer", "timeout", "crash" and what a scorer adds.
        parts: further numbers worth logging, e.g. the fraction of tests passed.
    """

    accuracy: float
    answered: bool
    reason: str
    parts: Mapping[str, float] = field(default_factory=dict)


class TruthError(DataError):
    """A row whose ground truth cannot be used: it is excluded and counted, since a 0 would teach something false."""
