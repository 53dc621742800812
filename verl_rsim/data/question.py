"""Defines the question record that data preparation works on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """Holds a question and its verifiable answer.

    Attributes:
        text: text of the question, with the options of a multiple choice.
        answer: ground truth; the tests of a coding task, see :mod:`verl_rsim.reward.code_grading.program_tests`.
        ability: "code" if answers are tested as programs, "math" if they are compared with ``answer``.
        context: role and content of the messages before the question, e.g. a system message; usually none.
    """

    text: str
    answer: str
    ability: str = "math"
    context: tuple[tuple[str, str], ...] = ()
