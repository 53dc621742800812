"""Brings units of measurement to one spelling: ``square meters``, ``m^2`` and ``\\text{sq m}`` are the same unit.

Nothing is converted. A letter is a unit only where answer or truth puts it in ``\\text``: ``6 k`` may be a product.
Words that change a number (``squared``, ``hundredths``, ``below``) are no units. Another unknown word is a unit of its
own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verl_rsim.reward.math_grading.vocabulary import COUNTABLES, QUALIFIERS

_ALIASES = {
    "m": "meter metre",
    "cm": "centimeter centimetre",
    "mm": "millimeter millimetre",
    "km": "kilometer kilometre kms",
    "in": "inch",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "g": "gram gm gramme",
    "kg": "kilogram kilo kgs",
    "mg": "milligram",
    "lb": "pound lbs",
    "oz": "ounce",
    "l": "liter litre L",
    "ml": "milliliter millilitre mL",
    "s": "second sec secs",
    "min": "minute mins",
    "h": "hour hr hrs",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr yrs",
    "j": "joule J",
    "kj": "kilojoule kJ",
    "n": "newton N",
    "w": "watt W",
    "v": "volt V",
    "hz": "hertz Hz",
    "pa": "pascal Pa",
    "mol": "mole",
    "k": "kelvin K",
    "ohm": "",
    "mph": "",
    "kmh": "kph",
    "gal": "gallon",
    "acre": "",
    "degree": "° deg",
    "rad": "radian",
    "c": "C celsius",
    "f": "F fahrenheit",
    "unit": "",
    "usd": "dollar buck",
    "eur": "euro",
    "gbp": "",
    "rs": "rupee",
    "cent": "",
}
_UNITS: dict[str, str] = {}
for _unit, _aliases in _ALIASES.items():
    _UNITS.update(dict.fromkeys([_unit, *_aliases.split()], _unit))
_RATES = {"mph": ("mi", "/", "h"), "kmh": ("km", "/", "h"), "kmph": ("km", "/", "h"), "fps": ("ft", "/", "s")}
_CLEAR_PAIRS = frozenset(["cm", "mm", "km", "ft", "kg", "ml", "mL", "lb", "oz", "hr", "yd", "in", "yr", "Hz"])
"""Units of two letters that are not taken as a product, even without ``\\text``."""
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_TOKEN = re.compile(r"[A-Za-z]+|°|/|\^\s*\{?\s*-?\d\s*\}?|[ .']|(?<=[A-Za-z])-(?=[A-Za-z])|\\cdot ?")
_OPERATORS = """
or to not no but plus minus times over was than half if either maybe mod modulo choose point e i pi x y is below
above under less negative positive factorial wrong incorrect false zero mean without except never almost nearly
approximately percent pct root sqrt log ln sin cos tan inverse reciprocal double twice thrice triple divided
into so versus vs through until etc isn don can invalid impossible unless whether because if when while
multiplied added subtracted halves quarter quarters tens ones teens base power exp infinity about somewhat
"""
_NUMERALS = """
one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion dozen
score lakh lac crore first third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth twentieth thirtieth
hundredth thousandth millionth billionth
"""
_NO_UNIT = frozenset([*_OPERATORS.split(), *_NUMERALS.split(), *(f"{word}s" for word in _NUMERALS.split())])
_ORDINAL = re.compile(r".*(?:teen|tie|dre|san|illion|rillion)ths?")
_POWER_WORDS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}
MAX_UNIT_WORDS = 10


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of a number.

    Attributes:
        name: name in one spelling.
        clear: True if it cannot be a product of variables.
        known: True if its words are in the vocabulary, so that it may follow a number whose truth has no unit.
    """

    name: str
    clear: bool
    known: bool


def unit_of(rest: str) -> Unit | None:
    """Returns the unit that a text consists of; None for a text that may be an operation, prose or another number."""
    tokens: list[str] = []
    loose: list[str] = []
    for place, piece in enumerate(_TEXT.split(rest)):
        found = _TOKEN.findall(piece)
        if "".join(found) != piece:
            return None
        tokens += found
        # Odd places of the split are the contents of \text: there a letter is a unit, elsewhere it may be a variable.
        loose += [token for token in found if token.isalpha()] if place % 2 == 0 else []
    tokens = [token for token in tokens if token not in (" ", "-", "'", ".") and not token.startswith("\\cdot")]
    names = [token for token in tokens if token.isalpha() or token == "°"]
    if names and "and" in (names[0], names[-1]):
        return None
    if rest[0] in ".'" or not names or len(names) > MAX_UNIT_WORDS or any(map(_changes_the_number, names)):
        return None
    if tokens[0].startswith("^") or (tokens[0] == "/" and not _spelled(names[0])):
        return None
    name = _join(tokens)
    if not name.replace("/", "").strip():
        return None
    clear = not loose or _clear(loose, names, tokens)
    return Unit(name, clear, all(map(_known, names)))


def is_measure(name: str) -> bool:
    """Returns True if a word is a unit of measurement: ``cm`` and ``hours`` are, ``eggs`` is not."""
    return _canonical(name) in _ALIASES and name.lower() not in ("a", "unit", "units")


def same_unit(given: str, wanted: str) -> bool:
    """Returns True if two units do not conflict: ``duck egg`` and ``egg`` do not, ``mi`` and ``egg`` do."""
    if given == wanted:
        return True
    left, right = ([word for word in unit.split() if word not in QUALIFIERS] for unit in (given, wanted))
    if any(word.split("^")[0] in _ALIASES for word in (*left, *right)):
        return left == right
    return bool(set(left) & set(right))


def _changes_the_number(name: str) -> bool:
    return name.lower() in _NO_UNIT or _ORDINAL.fullmatch(name.lower()) is not None


def _known(name: str) -> bool:
    lower = name.lower()
    if len(name) > 2 and not name.isupper():
        return True  # a word after a number is a noun, unless it is one of those that change numbers
    return _canonical(name) in _ALIASES or lower in COUNTABLES or lower in QUALIFIERS or lower in _POWER_WORDS


def _listed(name: str) -> bool:
    return is_measure(name) or name.lower() in COUNTABLES or name.lower() in QUALIFIERS or name.lower() in _POWER_WORDS


def _spelled(name: str) -> bool:
    """Returns True if a name without ``\\text`` is a word and no product of variables."""
    return name == "°" or name in _CLEAR_PAIRS or len(name) > 3 or (len(name) > 2 and _listed(name))


def _clear(loose: list[str], names: list[str], tokens: list[str]) -> bool:
    """Returns True if the names outside ``\\text`` are units: ``km/h`` is clear since ``km`` is; ``m/s`` is not."""
    letters: tuple[str, ...] = ()
    if "°" in names:
        letters = ("C", "F")
    elif "/" in tokens:
        letters = ("h", "s")
    article = "a" if names[-1] != "a" else ""
    allowed = (*letters, article)
    return any(map(_spelled, names)) and all(_spelled(name) or name in allowed or _is_qualifier(name) for name in loose)


def _is_qualifier(name: str) -> bool:
    return len(name) > 1 and (name.lower() in QUALIFIERS or name in _POWER_WORDS)


def _canonical(name: str) -> str:
    if len(name) == 1:
        return _UNITS.get(name, name)  # M is no meter
    for candidate in (name, name.lower(), name.lower().removesuffix("s"), name.lower().removesuffix("es")):
        if candidate in _UNITS:
            return _UNITS[candidate]
    return name.lower().removesuffix("s") if len(name) > 3 else name.lower()


def _join(tokens: list[str]) -> str:
    """Joins the tokens of a unit in one spelling: ``square meters``, ``m ^{2}`` and ``sq m`` are all ``m^2``."""
    parts: list[str] = []
    pending = ""
    for token in tokens:
        if token.lower() in _POWER_WORDS:
            power = _POWER_WORDS[token.lower()]
            if token.lower() in ("squared", "cubed") and parts:
                parts[-1] += power
            else:
                pending = power
        elif token.startswith("^"):
            parts[-1] += re.sub(r"[^\d^-]", "", token)
        elif token == "/" or token.lower() in ("per", "each", "every", "a", "an"):
            parts.append("/")
        elif token.lower() not in ("of", "the"):
            parts += [*_RATES.get(_canonical(token), (_canonical(token),))]
            parts[-1] += pending
            pending = ""
    return " ".join(parts)
