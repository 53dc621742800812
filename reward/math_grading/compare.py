"""Defines the types of answers and compares an answer with a ground truth by the rules of its type.

Everything here is plain work on strings and fractions, cheap enough for any thread. Only expressions that need a
computer algebra system go to the function ``equal`` that the caller passes in. Conventions:

* A number must be given as a number: no ``23 \\times 49`` for 1127, no ``\\sqrt{25}`` or ``10/2`` for 5, no ``6 = 5``.
* A percent sign is a unit. 30% is right for 30% and for 30. Where the truth carries the sign, 30 and 0.3 are right for
  30%. 500% is wrong for 5, and 30% is wrong for 0.3. FINANCIAL answers may differ from the truth by the sign and the
  factor 100.
* A unit may be left out, and is ignored where the truth has none. Another unit than the truth's is wrong, even if it
  could be converted.
"""

from __future__ import annotations

import re
from enum import Enum

from verl_rsim.reward.math_grading.answer_labels import strip_approximation, strip_name
from verl_rsim.reward.math_grading.equivalence import Decision, Equal, decide, same_quantity
from verl_rsim.reward.math_grading.extract import Fallback
from verl_rsim.reward.math_grading.left_sides import asked_value
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import same_phrase, tidy
from verl_rsim.reward.math_grading.quantities import MAX_DIGITS, quantity
from verl_rsim.reward.math_grading.tolerances import amount, close, close_lists, members, same_amount, without_change
from verl_rsim.reward.verdict import TruthError


class AnswerType(str, Enum):
    """Types of answers: each compares by rules of its own."""

    MATH = "math"
    """Anything LaTeX can say: numbers, expressions, equations, sets, intervals, tuples, matrices, words."""
    NUMBER = "number"
    """An exact number, perhaps with a unit."""
    INTEGER = "integer"
    """An exact whole number."""
    FLOAT = "float"
    """A number up to the relative tolerance; closed forms such as ``\\pi/4`` are accepted."""
    FINANCIAL = "financial"
    """A number up to the relative tolerance; 14.1% is 0.141, (14.1) is -14.1, "million" may be left out."""
    LIST = "list"
    """Numbers in order, each up to the relative tolerance, in any brackets."""
    BOOL = "bool"
    """True or false; yes and no are the same."""
    YES_NO = "yes_no"
    """The same as BOOL."""
    OPTION = "option"
    """The letter of a choice, A to J; never its value."""
    STRING = "string"
    """Words, compared without regard to case and spacing."""
    DATE = "date"
    """The same as STRING: dates are not converted."""
    AUTO = "auto"
    """BOOL, OPTION, LIST, INTEGER, FLOAT or MATH, by the form of each ground truth (as in TheoremQA)."""


NUMBERS = frozenset({AnswerType.NUMBER, AnswerType.INTEGER, AnswerType.FLOAT, AnswerType.FINANCIAL})
_BOOLS = frozenset({AnswerType.BOOL, AnswerType.YES_NO})
_STRINGS = frozenset({AnswerType.STRING, AnswerType.DATE})
_TOO_LONG = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")


def resolve(kind: AnswerType, truth: str) -> AnswerType:
    """Returns the type by which to compare: for AUTO by the form of the truth, for a FINANCIAL yes or no YES_NO."""
    wanted = tidy(truth)
    if kind is AnswerType.FINANCIAL and truth_value(wanted) is not None:
        return AnswerType.YES_NO
    if kind is not AnswerType.AUTO:
        return kind
    if truth_value(wanted) is not None:
        return AnswerType.BOOL
    if option(wanted) is not None:
        return AnswerType.OPTION
    if wanted.startswith("[") and wanted.endswith("]"):
        return AnswerType.LIST
    number = quantity(wanted)
    if number is None or not number.clear:
        return AnswerType.MATH
    return AnswerType.INTEGER if re.fullmatch(r"[+-]?[\d,]+", wanted) and not number.percent else AnswerType.FLOAT


def fallback(kind: AnswerType) -> Fallback:
    """Returns the place to look for an answer of this type in a text that marks none."""
    if kind is AnswerType.OPTION:
        return Fallback.OPTION
    if kind in _BOOLS:
        return Fallback.TRUTH
    return Fallback.LINE if kind in _STRINGS else Fallback.NUMBER


def require_usable(kind: AnswerType, truth: str) -> None:
    """Checks that a ground truth is of its type, which is not AUTO.

    Raises:
        TruthError: no answer could be right, or it is unclear which would be.
    """
    wanted = tidy(truth)
    number = quantity(strip_name(wanted))
    problem = ""
    if not wanted:
        problem = "it is empty"
    elif _TOO_LONG.search(wanted):
        problem = f"a number in it has more than {MAX_DIGITS} digits"
    elif kind in NUMBERS and number is None:
        problem = "it is not a number"
    elif kind is AnswerType.INTEGER and number is not None and number.value.denominator != 1:
        problem = "it is not a whole number"
    elif kind in _BOOLS and truth_value(wanted) is None:
        problem = "it is none of true, false, yes, no"
    elif kind is AnswerType.OPTION and option(wanted) is None:
        problem = "it is not the letter of an option, A to J"
    elif kind is AnswerType.LIST and any(quantity(member) is None for member in members(wanted)):
        problem = "it is not a list of numbers"
    if problem:
        raise TruthError(f"ground truth {truth[:80]!r} of type {kind.value!r} cannot be used: {problem}")


def judge(answer: str, truth: str, kind: AnswerType, tolerance: float, equal: Equal) -> Decision:
    """Decides whether an answer is right; raises what ``equal`` raises.

    Args:
        answer: extracted answer.
        truth: ground truth.
        kind: type of the answer, not AUTO.
        tolerance: relative tolerance of FLOAT, FINANCIAL and LIST answers.
        equal: compares two expressions by a computer algebra system.
    """
    given, wanted = tidy(answer), tidy(truth)
    if not given:
        return Decision(False, "as text")
    if kind is not AnswerType.FINANCIAL:
        given = without_change(given, wanted)
    if kind in (AnswerType.NUMBER, AnswerType.INTEGER):
        given = strip_approximation(given)
        if "=" in given:
            given = asked_value(given, equal)
        return Decision(given == wanted or bool(same_quantity(given, wanted, is_number=True)), "as numbers")
    if kind in _BOOLS:
        return Decision(truth_value(given) is truth_value(wanted), "as truth values")
    if kind is AnswerType.OPTION:
        return Decision(option(given) == option(wanted), "as options")
    if kind in _STRINGS:
        return Decision(same_phrase(given, wanted), "as words")
    if kind is AnswerType.LIST:
        return Decision(close_lists(given, wanted, tolerance, equal), f"in order, within {tolerance:.2g}")
    if kind is AnswerType.FINANCIAL:
        return Decision(same_amount(amount(given), amount(wanted), tolerance), f"as amounts, within {tolerance:.2g}")
    if kind is AnswerType.FLOAT:
        return Decision(close(given, wanted, tolerance, equal), f"as numbers, within {tolerance:.2g}")
    return decide(given, wanted, equal)
