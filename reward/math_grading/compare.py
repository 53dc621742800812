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
from fractions import Fraction
from itertools import product

from verl_rsim.reward.math_grading.answer_labels import strip_approximation, strip_name
from verl_rsim.reward.math_grading.equivalence import Equal, same_expression, same_quantity
from verl_rsim.reward.math_grading.extract import Fallback
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import tidy, words
from verl_rsim.reward.math_grading.quantities import MAX_DIGITS, Quantity, forms_agree, quantity, same_number
from verl_rsim.reward.math_grading.sequences import parts
from verl_rsim.reward.verdict import TruthError

NEAR_ZERO = Fraction(1, 10**9)
"""Absolute tolerance where the truth is 0; all other tolerances are relative."""


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
_PRODUCT = re.compile(
    r"\\(?:times|cdot|div)(?![A-Za-z])|\*|[\d)}]\s*[-+]\s*\d|\\(?:int|sum|prod|lim|binom)(?![A-Za-z])|[!=]"
)
_TOO_LONG = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")
_IN_PARENTHESES = re.compile(r"([$€£¥₹]?)\s*\(\s*([$€£¥₹]?\s*[\d.][^()]*)\)\s*(.*)", re.DOTALL)


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
    return Fallback.LINE if kind in _BOOLS | _STRINGS else Fallback.NUMBER


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
    elif kind is AnswerType.LIST and any(quantity(member) is None for member in _members(wanted)):
        problem = "it is not a list of numbers"
    if problem:
        raise TruthError(f"ground truth {truth[:80]!r} of type {kind.value!r} cannot be used: {problem}")


def judge(answer: str, truth: str, kind: AnswerType, tolerance: float, equal: Equal) -> bool:
    """Returns True if an answer is right; raises what ``equal`` raises.

    Args:
        answer: extracted answer.
        truth: ground truth.
        kind: type of the answer, not AUTO.
        tolerance: relative tolerance of FLOAT, FINANCIAL and LIST answers.
        equal: compares two expressions by a computer algebra system.
    """
    given, wanted = tidy(answer), tidy(truth)
    if not given:
        return False
    if kind in (AnswerType.NUMBER, AnswerType.INTEGER):
        return given == wanted or bool(same_quantity(given, wanted, is_number=True))
    if kind in _BOOLS:
        return truth_value(given) is truth_value(wanted)
    if kind is AnswerType.OPTION:
        return option(given) == option(wanted)
    if kind in _STRINGS:
        return words(given) == words(wanted)
    if kind is AnswerType.LIST:
        found, target = _members(given), _members(wanted)
        if len(found) != len(target):
            return False
        return all(_close(one, other, tolerance, equal) for one, other in zip(found, target, strict=True))
    if kind is AnswerType.FINANCIAL:
        return _same_amount(_amount(given), _amount(wanted), tolerance)
    if kind is AnswerType.FLOAT:
        return _close(given, wanted, tolerance, equal)
    return same_expression(given, wanted, equal)


def _members(text: str) -> list[str]:
    for opening, closing in (("[", "]"), ("(", ")"), ("\\{", "\\}"), ("\\langle", "\\rangle")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
    return parts(text)


def _near(given: Fraction, wanted: Fraction, tolerance: float) -> bool:
    # Fractions, so that a value at the very edge of the tolerance is not decided by the rounding of floats.
    return abs(given - wanted) <= (abs(wanted) * Fraction(tolerance) if wanted else NEAR_ZERO)


def _close(given: str, wanted: str, tolerance: float, equal: Equal) -> bool:
    """Returns True if a number, or a closed form without an operation left to do, is within the tolerance."""
    given = strip_name(strip_approximation(given))
    found, target = quantity(given), quantity(strip_name(wanted))
    if target is None:
        return False
    if found is None:
        return not _PRODUCT.search(given) and len(parts(given)) == 1 and equal(given, wanted, tolerance)
    if not forms_agree(found, target):
        return False
    if found.percent or target.percent:
        decimal = not found.percent and _near(found.value, target.value, tolerance)
        return decimal or _near(found.numeral, target.numeral, tolerance)
    return same_number(found, target) or _near(found.value, target.value, tolerance)


def _amount(text: str) -> Quantity | None:
    """Returns the amount of money a text states; in parentheses it is negative, as in accounting."""
    text = strip_name(strip_approximation(text))
    if negative := _IN_PARENTHESES.fullmatch(text):
        text = f"{negative.group(1)}-{negative.group(2)}{negative.group(3)}".replace("-$", "$-")
    return quantity(text)


def _same_amount(found: Quantity | None, target: Quantity | None, tolerance: float) -> bool:
    if found is None or target is None or (found.currency and target.currency and found.currency != target.currency):
        return False
    readings, wanted = {found.value}, {target.value}
    # Tables give amounts in millions without saying so: where one side says "million" and the other does not, the bare
    # numerals may agree as well. The same holds for a percent sign.
    if target.scale == 1:
        readings.add(found.numeral / (100 if found.percent else 1))
    elif found.scale == 1:
        wanted.add(target.numeral / (100 if target.percent else 1))
    if target.percent and not found.percent:
        wanted.add(target.numeral)
    if found.percent and not target.percent:
        readings.add(found.numeral)
    return any(_near(given, value, tolerance) for given, value in product(readings, wanted))
