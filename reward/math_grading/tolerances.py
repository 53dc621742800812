"""Compares numbers up to a tolerance: FLOAT, FINANCIAL and LIST answers."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from itertools import product

from verl_rsim.reward.math_grading.answer_labels import strip_approximation, strip_name
from verl_rsim.reward.math_grading.equivalence import Equal
from verl_rsim.reward.math_grading.left_sides import asked_value
from verl_rsim.reward.math_grading.matrices import vector
from verl_rsim.reward.math_grading.quantities import Quantity, forms_agree, quantity, same_number
from verl_rsim.reward.math_grading.sequences import parts

NEAR_ZERO = Fraction(1, 10**9)
"""Absolute tolerance where the truth is 0; all other tolerances are relative."""
MAX_ROUNDING = Fraction(3, 100)
"""Largest relative error that the rounding of a truth of two digits explains."""
_PRODUCT = re.compile(
    r"\\(?:times|cdot|div)(?![A-Za-z])|\*|[\d)}]\s?[-+]\s?\d|\\(?:int|sum|prod|lim|binom)(?![A-Za-z])|[!=]"
)
_TWO_DIGITS = re.compile(r"[+-]?0?\.0{0,6}([1-9]\d)|[+-]?([1-9]\.\d)")
_IN_PARENTHESES = re.compile(r"([$€£¥₹]?)\s?\(\s?([$€£¥₹]?\s?[\d.][^()]*)\)\s?(.*)", re.DOTALL)
_FALL = r"decrease|decline|drop|fall|fell|reduction|loss|lower|decreased|declined|dropped"
_RISE = r"increase|rise|rose|growth|gain|grew|increased|gained"
_CHANGE = re.compile(rf"(?:an? |the )?(?:net )?(?:({_FALL})|(?:{_RISE}))(?: of| by)? (.+)", re.IGNORECASE)
_CHANGE_AFTER = re.compile(rf"(?:an? )?(.*\d.*?)(?: points?)? (?:({_FALL})|(?:{_RISE}))", re.IGNORECASE)
_CHANGE_WORD = re.compile(rf"\b(?:{_FALL}|{_RISE})\b", re.IGNORECASE)
_TIMES = re.compile(r"(.*\d)\s?(?:x|times|\\times|\\text\{ ?(?:x|times) ?\})", re.IGNORECASE)


def members(text: str) -> list[str]:
    """Returns the members of a list in any brackets, of a column, or of ``[1 2 3]``."""
    text = strip_name(text)
    cells = vector(text)
    if cells is not None:
        return cells
    for opening, closing in (("[", "]"), ("(", ")"), ("\\{", "\\}"), ("\\langle", "\\rangle")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
            if "," not in text and re.fullmatch(r"[-+\d. eE]+", text.strip()):
                return text.split()
    return parts(text)


def close_lists(given: str, wanted: str, tolerance: float, equal: Equal) -> bool:
    """Returns True if two lists have the same length, and members in the same order within the tolerance."""
    found, target = members(given), members(wanted)
    if len(found) != len(target):
        return False
    return all(close(one, other, tolerance, equal) for one, other in zip(found, target, strict=True))


def close(given: str, wanted: str, tolerance: float, equal: Equal) -> bool:
    """Returns True if a number, or a closed form without an operation left to do, is within the tolerance."""
    given = strip_approximation(given)
    given = strip_name(asked_value(given, equal) if "=" in given else given)
    found, target = quantity(given), quantity(strip_name(wanted))
    if target is None:
        return False
    if found is None:
        return not _PRODUCT.search(given) and len(parts(given)) == 1 and equal(given, wanted, tolerance)
    if found.known and found.unit and not target.unit:
        found = replace(found, clear=True)
    if not forms_agree(found, target):
        return False
    if found.percent or target.percent:
        decimal = not found.percent and _near(found.value, target.value, tolerance)
        return decimal or _near(found.numeral, target.numeral, tolerance)
    if same_number(found, target) or _near(found.value, target.value, tolerance):
        return True
    return _rounds_to(found.value, strip_name(wanted))


def _rounds_to(value: Fraction, wanted: str) -> bool:
    """Returns True if a value, rounded to the two digits that a truth such as 0.17 has, is the truth."""
    found = _TWO_DIGITS.fullmatch(wanted)
    if not found:
        return False
    target = Fraction(wanted)
    step = Fraction(1, 10 ** len(wanted.partition(".")[2]))
    return abs(value - target) <= min(step / 2, abs(target) * MAX_ROUNDING)


def _near(given: Fraction, wanted: Fraction, tolerance: float) -> bool:
    # Fractions, so that a value at the very edge of the tolerance is not decided by the rounding of floats.
    return abs(given - wanted) <= (abs(wanted) * Fraction(tolerance) if wanted else NEAR_ZERO)


def amount(text: str) -> Quantity | None:
    """Returns the amount of money a text states; "(5)" and "a decrease of 5" are negative, "3.5x" is 3.5."""
    text = strip_name(strip_approximation(text))
    if negative := _IN_PARENTHESES.fullmatch(text):
        text = f"{negative.group(1)}-{negative.group(2)}{negative.group(3)}".replace("-$", "$-")
    if times := _TIMES.fullmatch(text):
        text = times.group(1)
    change, after = _CHANGE.fullmatch(text), _CHANGE_AFTER.fullmatch(text)
    if change is None and after is None:
        return quantity(text)
    falls = change.group(1) if change else after.group(2) if after else None
    found = quantity(change.group(2) if change else after.group(1) if after else "")
    return replace(found, numeral=-abs(found.numeral)) if found and falls else found


def without_change(given: str, wanted: str) -> str:
    """Returns ``5`` for ``a decrease of 5``, or ``-5`` if the truth is negative."""
    if not _CHANGE_WORD.search(given):
        return given  # the patterns below take quadratic time
    found = _CHANGE.fullmatch(given) or _CHANGE_AFTER.fullmatch(given)
    if found is None:
        return given
    falls, value = (found.group(1), found.group(2)) if found.re is _CHANGE else (found.group(2), found.group(1))
    return f"-{value}" if falls and wanted.startswith("-") and not value.startswith("-") else value


def same_amount(found: Quantity | None, target: Quantity | None, tolerance: float) -> bool:
    """Returns True if two amounts agree within the tolerance, up to "million" or a percent sign on one side only."""
    if found is None or target is None or (found.currency and target.currency and found.currency != target.currency):
        return False
    for one, other in ((found, target), (target, found)):
        if one.percent and (other.currency or other.scale != 1):
            return False  # $5 million is no 5%
    readings, wanted = {found.value}, {target.value}
    # Tables give amounts in millions without saying so: where one side says "million" and the other does not, the bare
    # numerals may agree as well. The same holds for a percent sign.
    if target.scale == 1:
        readings.add(found.numeral / (100 if found.percent else 1))
        if found.scale == 10**9:
            readings.add(found.numeral * 1000)  # in millions
    elif found.scale == 1:
        wanted.add(target.numeral / (100 if target.percent else 1))
    if target.percent and not found.percent:
        wanted.add(target.numeral)
    if found.percent and not target.percent:
        readings.add(found.numeral)
    return any(_near(given, value, tolerance) for given, value in product(readings, wanted))
