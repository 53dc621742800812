"""The left side of an answer that names what it gives: ``x = 5``, ``\\angle ABC = 90°``, ``total cost = $5``.

Only names: ``\\sqrt x = 5``, ``|x| = 5`` and ``x^{-1} = 5`` say something else than 5.
"""

from __future__ import annotations

import re

from verl_rsim.reward.math_grading.normalize import squash
from verl_rsim.reward.math_grading.vocabulary import NAMES

_GREEK = (
    r"\\(?:alpha|beta|gamma|Gamma|delta|Delta|epsilon|varepsilon|zeta|eta|theta|Theta|kappa|lambda|Lambda|mu|nu|xi|rho|"
    r"sigma|tau|phi|varphi|Phi|chi|psi|Psi|omega|Omega|ell)(?![A-Za-z])"
)
_SUBSCRIPT = r"(?<=[A-Za-z'])_(?:\{\w+\}|\w)"
_SYMBOL = rf"(?:[A-Za-z]|{_GREEK})'*(?:{_SUBSCRIPT})?'*"
_ARGUMENTS = r"\s*\(\s*\w+(?:\s*,\s*\w+)*\s*\)"
# The branches of the last repetition begin with different letters: else a sentence would take for ever to be no name.
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
    """What the text names, in one spelling; None if it does not begin with a name and an equals sign."""
    found = _named(text)
    return squash(found.group(1)) if found else None


def unnamed(text: str) -> str:
    """``x = 5`` as ``5``; the left side must be a name, not an expression."""
    found = _named(text)
    return text[found.end() :] if found else text


def stated(text: str) -> str:
    """What is said to be about something is what is said, unless it is but a name: then it is about that."""
    left, sign, right = text.partition("\\approx")
    if not sign or not left.strip():
        return text
    return f"{left.strip()}={right.strip()}" if _named(f"{left.strip()}=") else left.strip()


def names_agree(given: str, wanted: str) -> bool:
    """Whether two answers name the same thing, or one of them names nothing."""
    left, right = name_of(given), name_of(wanted)
    return left is None or right is None or left == right


def _named(text: str) -> re.Match[str] | None:
    found = _NAME.match(text)
    return found if found and _is_name(found.group(1).strip()) else None


def _is_name(name: str) -> bool:
    """Whether its words are names; a sequence of letters would be a product."""
    if not name or re.search(r"[|\[(\\](?!text\{)", name):
        return bool(name)  # the pattern has seen to these
    plain = name.replace("\\text{", " ").replace("}", " ")
    listed = [word.removesuffix("'s") for word in _WORD.findall(re.sub(r"_\{?\s*\w+", "", plain))]
    others = [word for word in listed if len(word) > 1 and not (len(word) <= 4 and word.isupper())]
    symbols = [word for word in listed if word not in others and not (word == "a" and others)]
    return len(symbols) <= 1 and all(word.lower() in NAMES for word in others)
