"""A question with its answer, as data preparation handles it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its verifiable answer.

    Attributes:
        text: what is asked; of a multiple choice with its options.
        answer: the ground truth; of a coding task its tests, see :mod:`verl_rsim.reward.code_grading.program_tests`.
        ability: "math" for everything whose answer is compared, "code" for what is tested.
    """

    text: str
    answer: str
    ability: str = "math"
