"""Parses numbers with their units, in the forms in which a person writes a final answer; exact, by fractions.

A form is a decimal, a fraction, a mixed number, scientific notation or a number word, with thousands separators, a
percent sign, a currency or a unit. Sums, products, powers and roots are no forms: the answer ``23 \\times 49`` is still
to be worked out. Text must have gone through :func:`verl_rsim.reward.math_grading.normalize.tidy`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verl_rsim.reward.math_grading.normalize import unwrap
from verl_rsim.reward.math_grading.number_words import spelled_number
from verl_rsim.reward.math_grading.units import Unit, same_unit, unit_of

MAX_EXPONENT = 400
MAX_DIGITS = 4000
"""Longest number; Python refuses to parse integers of more than 4300 digits."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit.

    Attributes:
        numeral: the number as written, without percent sign and "million".
        scale: factor of a word after it, e.g. 10**6 for "million"; else 1.
        percent: True if it has a percent sign.
        divided: True if it is written as a fraction or a mixed number.
        currency, unit: names in one spelling, "" if there is none.
        clear: True if the unit cannot be anything else, such as a product of variables.
        known: True if the unit's words are in the vocabulary.
    """

    numeral: Fraction
    scale: int = 1
    percent: bool = False
    divided: bool = False
    currency: str = ""
    unit: str = ""
    clear: bool = True
    known: bool = True

    @property
    def value(self) -> Fraction:
        """The number that is meant: 3/10 for 30%."""
        return self.numeral * self.scale / (100 if self.percent else 1)


_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_POWER = r"10\s*(?:\^|\*\*)\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))"
_SIGN = r"(?P<sign>[+-]?)\s*"
_FORMS = {
    "recurring": re.compile(r"(\d{1,20})\.(\d{2,60})\s?\\ldots"),
    "repeating": re.compile(r"(\d+)\.(\d*)\\(?:overline|bar)\s*\{?(\d+)\}?"),
    "power": re.compile(rf"(?:({_DECIMAL})\s*(?:\\times|\\cdot|\*|x)\s*)?{_POWER}"),
    "exponent": re.compile(rf"({_DECIMAL})\s?[eE]([+-]?\d+)"),
    "mixed": re.compile(
        r"(\d+)(?:\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\s*\\frac\s*(\d)\s*(\d)| (\d+)\s*/\s*(\d+))"
    ),
    "fraction": re.compile(rf"\\frac\s*\{{\s*([+-]?\s*{_DECIMAL})\s*\}}\s*\{{\s*([+-]?\s*{_DECIMAL})\s*\}}"),
    "short": re.compile(r"\\frac\s*(?:(\d)|\{(\d+)\})\s*(?:(\d)|\{(\d+)\})"),
    "slash": re.compile(rf"({_DECIMAL})\s*/\s*([+-]?\s*{_DECIMAL})(?!\d)"),
    "decimal": re.compile(rf"({_DECIMAL})"),
}
_DIVISIONS = frozenset({"mixed", "fraction", "short", "slash"})
_SIGNED = re.compile(_SIGN)
_WHOLE_TEXT = re.compile(r"^\\text\{([^{}]*)\}$")
_APPROXIMATELY = re.compile(r"^(?:\\(?:approx|sim)(?:eq)?|~|=)\s*")
_CURRENCIES = {
    "$": "$",
    "us$": "$",
    "usd": "$",
    "€": "€",
    "eur": "€",
    "£": "£",
    "gbp": "£",
    "¥": "¥",
    "₹": "₹",
    "rs": "₹",
}
_CURRENCY = re.compile(r"(US\$|USD|EUR|GBP|Rs\.?|[$€£¥₹])\s*", re.IGNORECASE)
_SCALE = re.compile(r"\s*(?:\\text\{\s*)?(hundred|thousand|million|billion|trillion|dozen)s?\b\s*\}?", re.IGNORECASE)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PERCENT = re.compile(r"\s*(?:%|\\text\{\s*(?:%|percent|pct)\s*\}|(?:percent|per cent|pct)\b)", re.IGNORECASE)


def quantity(text: str) -> Quantity | None:
    """Returns the number that a text consists of, with its unit; None if the text is anything else."""
    if len(text) > MAX_DIGITS:
        return None
    text = _APPROXIMATELY.sub("", text, count=1)
    if "," not in text:
        text = unwrap(text, "(", ")")
    if text[:1].isalpha() or text.startswith("\\text{"):
        text = _WHOLE_TEXT.sub(r"\1", text).strip()
        text = spelled_number(text) or text
    sign, position = _sign(text, 0)
    currency = ""
    if symbol := _CURRENCY.match(text, position):
        currency = _CURRENCIES[symbol.group(1).lower().rstrip(".")]
        second, position = _sign(text, symbol.end())
        sign *= second
    for name, pattern in _FORMS.items():
        found = pattern.match(text, position)
        number = _value(name, found) if found else None
        if found is None or number is None:
            continue
        suffix = _suffix(text[found.end() :])
        if suffix is not None:
            return _with_suffix(sign * number, suffix, currency, divided=name in _DIVISIONS)
    return None


def _with_suffix(number: Fraction, suffix: _Suffix, currency: str, divided: bool) -> Quantity:
    unit = suffix.unit.name
    money, _, per = unit.partition(" ")
    if money in _CURRENCIES and not currency:  # "5 dollars per hour"
        currency, unit = _CURRENCIES[money], per
    clear = suffix.unit.clear or not unit
    return Quantity(number, suffix.scale, suffix.percent, divided, currency, unit, clear, suffix.unit.known)


def _sign(text: str, position: int) -> tuple[int, int]:
    found = _SIGNED.match(text, position)
    return (-1 if found and found["sign"] == "-" else 1), found.end() if found else position


def _value(form: str, found: re.Match[str]) -> Fraction | None:
    groups = [re.sub(r"[,\s]", "", group) for group in found.groups() if group is not None]
    if form == "decimal":
        return Fraction(groups[0])
    if form in ("power", "exponent"):
        # Bounded before the power is computed: 10**999999999 would not end.
        exponent = int(groups[-1]) if len(groups[-1]) < 6 else MAX_EXPONENT + 1
        mantissa = Fraction(groups[0]) if len(groups) > 1 else Fraction(1)
        return mantissa * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None
    if form == "repeating":
        return _repeating(*found.groups())
    if form == "recurring":
        return _recurring(*found.groups())
    if Fraction(groups[-1]) == 0:
        return None
    ratio = Fraction(groups[-2]) / Fraction(groups[-1])
    if form == "mixed":
        return int(groups[0]) + ratio if ratio < 1 else None
    return ratio


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    nines = (10 ** len(period) - 1) * 10 ** len(fixed)
    return Fraction(int(whole + fixed + period) - int(whole + fixed), nines)


def _recurring(whole: str, digits: str) -> Fraction | None:
    """Returns 4/11 for ``0.3636...``: the shortest block that ends the digits twice; None if there is none."""
    for length in range(1, len(digits) // 2 + 1):
        block = digits[-length:]
        if digits.endswith(block * 2):
            while digits.endswith(block * 2):
                digits = digits[:-length]
            return _repeating(whole, digits[:-length], block)
    return None


@dataclass(frozen=True, slots=True)
class _Suffix:
    scale: int
    percent: bool
    unit: Unit


def _suffix(rest: str) -> _Suffix | None:
    """Parses what follows a number: scale, percent sign and unit; None if it is no suffix of a number."""
    scale, percent = 1, False
    if found := _SCALE.match(rest):
        scale, rest = _SCALES[found.group(1).lower()], rest[found.end() :]
    if found := _PERCENT.match(rest):
        percent, rest = True, rest[found.end() :]
    unit = unit_of(rest) if rest.strip() else Unit("", clear=True, known=True)
    return None if unit is None else _Suffix(scale, percent, unit)


def same_number(given: Quantity, wanted: Quantity) -> bool:
    """Returns True if an answer is the wanted number in a form as simple; a decimal for 1/3 needs six right digits.

    A percent sign is a unit: 30% is right for 30; 30 and 0.3 are right for 30%; 500% is wrong for 5 and 30% for 0.3.
    """
    if not forms_agree(given, wanted):
        return False
    if given.percent or wanted.percent:
        return given.numeral == wanted.numeral or (not given.percent and given.value == wanted.value)
    if given.value == wanted.value:
        return True
    # Only a truth without a finite decimal may be rounded: 0.33 for 1/3 is too coarse, and 0.249999 is not 1/4.
    rounded = not given.divided and not _terminates(wanted.value)
    return rounded and abs(given.value - wanted.value) <= Fraction(1, 10**6) * min(Fraction(1), abs(wanted.value))


def forms_agree(given: Quantity, wanted: Quantity) -> bool:
    """Returns True if the units agree, and a whole number is not given as a division still to be done."""
    whole = wanted.numeral.denominator == 1 and not (wanted.divided or wanted.percent)
    return units_agree(given, wanted) and not (given.divided and whole)


def units_agree(given: Quantity, wanted: Quantity) -> bool:
    """Returns True if the given unit is the wanted one, or one of the two has none; nothing is converted.

    A unit that the truth lacks must be known and clear.
    """
    if wanted.percent:
        return given.percent or not (given.unit or given.currency)
    if not (wanted.unit or wanted.currency):
        # "1.5%" may be meant for 1.5, but a fraction with a percent sign is another number.
        return given.clear and given.known and not (given.percent and wanted.divided)
    if given.percent or given.currency not in ("", wanted.currency):
        return False
    return not given.unit or (bool(wanted.unit) and same_unit(given.unit, wanted.unit))


def _terminates(value: Fraction) -> bool:
    """Returns True if a value has finitely many decimals."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
