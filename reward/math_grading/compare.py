"""The types of answers, and when an answer of each type is right.

Everything here is plain string and fraction work, cheap enough for any thread; only expressions that need a computer
algebra system go to the ``equal`` that the caller passes in. Conventions worth knowing:

* A number must be given as a number: no ``23 \\times 49`` for 1127, no ``\\sqrt{25}`` or ``10/2`` for 5, no ``6 = 5``.
* A percent sign is a unit: 30% is right for 30%, 30 and, where the truth carries the sign, 0.3 is right for 30%; 500%
  is wrong for 5, and 30% for 0.3. In FINANCIAL answers the sign and the factor 100 are both accepted.
* A unit may be left out, and is ignored where the truth has none; another unit than the truth's is wrong, even if it
  converts.
"""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction

from verl_rsim.reward.math_grading.answer_labels import stated, unnamed
from verl_rsim.reward.math_grading.equivalence import Equal, same_expression, same_quantity
from verl_rsim.reward.math_grading.extract import Fallback
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import tidy, words
from verl_rsim.reward.math_grading.quantities import MAX_DIGITS, Quantity, forms_agree, quantity, same_number
from verl_rsim.reward.math_grading.sequences import parts
from verl_rsim.reward.verdict import TruthError

NEAR_ZERO = Fraction(1, 10**9)
"""How far from a truth of 0 an answer up to a tolerance may be; all other tolerances are relative."""


class AnswerType(str, Enum):
    """What kind of answer a ground truth is."""

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
    """As BOOL."""
    OPTION = "option"
    """The letter of a choice, A to J; never its value."""
    STRING = "string"
    """Words, compared without regard to case and spacing."""
    DATE = "date"
    """As STRING: dates are not converted."""
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
    """The type itself, or for AUTO the one that the form of the ground truth shows; FINANCIAL may be yes or no."""
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
    """Where the answer is in a text that marks none."""
    if kind is AnswerType.OPTION:
        return Fallback.OPTION
    return Fallback.LINE if kind in _BOOLS | _STRINGS else Fallback.NUMBER


def require_usable(kind: AnswerType, truth: str) -> None:
    """Check a ground truth against its type, which is not AUTO.

    Raises:
        TruthError: no answer could ever be right, or what would be is anyone's guess.
    """
    wanted = tidy(truth)
    number = quantity(unnamed(wanted))
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
    """Whether an answer is right; raises what ``equal`` raises. The type is not AUTO."""
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
        pairs = zip(found, target, strict=False)
        return len(found) == len(target) and all(_close(one, other, tolerance, equal) for one, other in pairs)
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
    return abs(given - wanted) <= (abs(wanted) * Fraction(tolerance) if wanted else NEAR_ZERO)


def _close(given: str, wanted: str, tolerance: float, equal: Equal) -> bool:
    """Whether a number, or a closed form without an operation left to do, is within the tolerance."""
    given = unnamed(stated(given))
    found, target = quantity(given), quantity(unnamed(wanted))
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
    """The amount a text names; in parentheses it is negative, as in accounts."""
    text = unnamed(stated(text))
    if negative := _IN_PARENTHESES.fullmatch(text):
        text = f"{negative.group(1)}-{negative.group(2)}{negative.group(3)}".replace("-$", "$-")
    return quantity(text)


def _same_amount(found: Quantity | None, target: Quantity | None, tolerance: float) -> bool:
    if found is None or target is None or (found.currency and target.currency and found.currency != target.currency):
        return False
    readings, wanted = {found.value}, {target.value}
    if target.scale == 1:
        readings.add(found.numeral / (100 if found.percent else 1))  # its "million" is the table's
    elif found.scale == 1:
        wanted.add(target.numeral / (100 if target.percent else 1))
    if target.percent and not found.percent:
        wanted.add(target.numeral)
    if found.percent and not target.percent:
        readings.add(found.numeral)
    return any(_near(given, value, tolerance) for given in readings for value in wanted)
