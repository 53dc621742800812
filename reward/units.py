"""Units of measurement in one spelling: ``square meters``, ``m^2`` and ``\\text{sq m}`` are the same unit.

Nothing is converted; a word that is no unit known here is a unit of its own ("apples").
"""

from __future__ import annotations

import re

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
_UNITS = {alias: unit for unit, aliases in _ALIASES.items() for alias in (unit, *aliases.split())}
_TOKEN = re.compile(r"[A-Za-z]+|°|/|\^\s*\{?\s*-?\d\s*\}?|[ .'-]|\\cdot ?")
_CONNECTIVES = "or and to not no but plus minus times over is was than half if either maybe mod choose point e i pi x y"
_NO_UNIT = frozenset(_CONNECTIVES.split())
MAX_UNIT_WORDS = 6


def unit_of(rest: str) -> str | None:
    """A unit in one spelling, e.g. ``m^2/s``; None for what may be algebra, prose or another number."""
    apart = rest[0] in " /\\°-"
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", rest)
    tokens = _TOKEN.findall(plain)
    if "".join(tokens) != plain or rest[0] in ".'^":
        return None
    tokens = [token for token in tokens if token not in (" ", ".", "-", "'") and not token.startswith("\\cdot")]
    names = [token for token in tokens if token.isalpha()]
    if len(names) > MAX_UNIT_WORDS or any(name.lower() in _NO_UNIT for name in names):
        return None
    if "\\text" not in rest and any(_may_be_algebra(name, apart) for name in names):
        return None
    return _join(tokens)


def _may_be_algebra(name: str, apart: bool) -> bool:
    known = _canonical(name) in _ALIASES
    return not (known and (apart or len(name) > 1)) and not (apart and len(name) > 2)


def _canonical(name: str) -> str:
    for candidate in (name, name.lower(), name.lower().removesuffix("s"), name.lower().removesuffix("es")):
        if candidate in _UNITS:
            return _UNITS[candidate]
    return name.lower().removesuffix("s") if len(name) > 3 else name.lower()


_POWER_WORDS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cu": "^3", "cubed": "^3"}


def _join(tokens: list[str]) -> str:
    """Tokens of a unit in one spelling: ``square meters``, ``m ^{2}`` and ``sq m`` are all ``m^2``."""
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
            power = re.sub(r"[^\d^-]", "", token)
            parts[-1:] = [parts[-1] + power] if parts else [power]
        elif token == "/" or token.lower() in ("per", "each", "a", "an"):
            parts.append("/")
        elif token.lower() not in ("of", "the"):
            parts.append(_canonical(token) + pending)
            pending = ""
    return " ".join(parts)
