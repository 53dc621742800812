"""Separates an answer from the name on its left side: ``x = 5``, ``\\angle ABC = 90°``, ``total cost = $5``.

Only names are removed: the left sides of ``\\sqrt x = 5``, ``|x| = 5`` and ``x^{-1} = 5`` change the answer.
"""

from __future__ import annotations

import re

from verl_rsim.reward.math_grading.normalize import squash
from verl_rsim.reward.math_grading.vocabulary import CHANGING_WORDS

_GREEK = (
    r"\\(?:alpha|beta|gamma|Gamma|delta|Delta|epsilon|varepsilon|zeta|eta|theta|Theta|kappa|lambda|Lambda|mu|nu|xi|rho|"
    r"sigma|tau|phi|varphi|Phi|chi|psi|Psi|omega|Omega|ell)(?![A-Za-z])"
)
_SUBSCRIPT = r"(?<=[A-Za-z'])_(?:\{(?:\\text\{)?[\w ]{1,20}\}{1,2}|\w)"
_SYMBOL = rf"(?:[A-Za-z]|{_GREEK})'*(?:{_SUBSCRIPT})?'*"
_ARGUMENTS = r"\s*\(\s*\w+(?:\s*,\s*\w+)*\s*\)"
# The branches of the last repetition begin with different characters. If two could match the same text, a sentence that
# is no name would take exponential time to be rejected.
_NAME = re.compile(
    rf"""(
    m?\s*\\(?:angle|triangle|vec|overline|overrightarrow|hat|bar|mathcal|mathbb)(?![A-Za-z])\s*\{{?\s*{_SYMBOL}[A-Z]{{0,3}}\}}?
    | {_SYMBOL}(?:\^\{{-1\}})?{_ARGUMENTS}
    | \[[A-Z]{{2,5}}\] | \|?[A-Z]{{2,4}}\|?
    | \(\s*{_SYMBOL}(?:\s*,\s*{_SYMBOL})*\s*\)
    | {_SYMBOL}
    | (?:\\text\{{[^{{}}=]*\}}|[A-Za-z' ]|{_GREEK}|{_SUBSCRIPT})+
    )\s*(?:=|\\in(?![A-Za-z])|\\approx(?![A-Za-z]))\s*""",
    re.VERBOSE,
)
_WORD = re.compile(r"[A-Za-z]+(?:'s)?")


def name_of(text: str) -> str | None:
    """Returns the name at the start of a text, in one spelling; None if there is no name with an equals sign."""
    found = _named(text)
    return squash(found.group(1)) if found else None


def strip_name(text: str) -> str:
    """Returns ``5`` for ``x = 5``; the left side must be a name, not an expression."""
    found = _named(text)
    return text[found.end() :] if found else text


def strip_approximation(text: str) -> str:
    """Returns ``\\pi`` for ``\\pi \\approx 3.14``; if the left side is a name, ``x=3.14`` for ``x \\approx 3.14``."""
    left, sign, right = text.partition("\\approx")
    left = left.strip().removesuffix("=").strip()
    if not sign or not left:
        return text
    name = _named(f"{left}=")
    return f"{left}={right.strip()}" if name and name.end() == len(left) + 1 else left


def names_agree(given: str, wanted: str) -> bool:
    """Returns True if two answers have the same name, or one of them has none."""
    left, right = name_of(given), name_of(wanted)
    return left is None or right is None or left == right


def _named(text: str) -> re.Match[str] | None:
    found = _NAME.match(text)
    return found if found and _is_name(found.group(1).strip()) else None


def _is_name(name: str) -> bool:
    """Returns True if all words of a left side are names; several single letters would be a product."""
    if not name or re.search(r"[|\[(\\](?!text\{)", name):
        return bool(name)  # symbols and commands: the pattern admits only names
    plain = name.replace("\\text{", " ").replace("}", " ")
    listed = [word.removesuffix("'s") for word in _WORD.findall(re.sub(r"_\{?\s*\w+", "", plain))]
    others = [word for word in listed if len(word) > 1 and not (len(word) <= 4 and word.isupper())]
    symbols = [word for word in listed if word not in others and not (word == "a" and others)]
    return len(symbols) <= 1 and not any(word.lower() in CHANGING_WORDS for word in others)
