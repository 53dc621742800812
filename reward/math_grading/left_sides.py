"""Separates the value from what it is the value of: ``293`` from ``m+n=293``, ``|z|=293`` and ``256+37=293``.

Bare names are the matter of :mod:`.answer_labels`. Here a left side is accepted if a question can ask for it: a
function value, a ratio, an expression in several unknowns, arithmetic that is right. An operation on a single unknown,
as in ``\\sqrt x = 5`` and ``2x = 5``, is an equation that is still to be solved.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from verl_rsim.reward.math_grading.answer_labels import strip_name
from verl_rsim.reward.math_grading.normalize import split
from verl_rsim.reward.math_grading.sequences import parts
from verl_rsim.reward.math_grading.vocabulary import CHANGING_WORDS

_EQUALS = re.compile(r"(?<![<>!:=])=(?!=)|\\equiv(?![A-Za-z])")
_RELATION = re.compile(r"[<>]|\\(?:leq|geq|neq|in|notin|subset|approx)(?![A-Za-z])")
_BARE_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w{1,5}\}?)?")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ASKED_FUNCTION = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc|arg|det|gcd|lcm|max|min|deg|dim|Pr|sup|inf|angle|vec|overline|frac\{d|Re|Im|text|binom)"
    r"(?![A-Za-z])|^(?:\\mathbb\{?[EP]\}?|[A-Z])\s?[(\[]|^[a-zA-Z]'{0,3}(?:\^\{-1\})?\([^=]*\)|^\\\||^\|(?!x\|)[^|]*\||"
    r"^(?:N|V|D|ord|Var|Cov|deg|rank|dim|area|vol|lcm|gcd|max|min)\s?[(\[{]"
)
_RATIO = re.compile(r"[^:=]{1,60}:[^:=]{1,60}")
_SEGMENTS = re.compile(
    r"\\frac\s?\{\s?[A-Z]{1,3}(?:_\{?\w{1,5}\}?)?\s?\}\s?\{\s?[A-Z]{1,3}(?:_\{?\w{1,5}\}?)?\s?\}|[A-Z]{2,3}\s?/\s?[A-Z]{2,3}"
)
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\w)")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "theta",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
    ]
)
_OPERATION = re.compile(r"[-+*/^!(]|\\(?:cdot|times|div|frac|sqrt|binom|log|ln)(?![A-Za-z])")


def asked_value(text: str, equal: Callable[[str, str, float], bool]) -> str:
    """Returns the right side of an answer if its left sides are what a question may ask for, else the answer.

    Raises:
        Exception: what ``equal`` raises, which compares the sides of an arithmetic chain.
    """
    sides = _sides(text)
    if len(sides) < 2:
        return text
    if len(sides) > 2 and not _is_arithmetic(sides[0]):
        text = sides[-1]
        left = strip_name(f"{sides[0]}=0")
        if left != "0" and not _may_be_asked(sides[0]):
            return "=".join(sides)
        inner = [side for side in sides[1:-1] if _is_arithmetic(side)]
        return text if all(equal(side, text, 0.0) for side in inner) else "=".join(sides)
    value = sides[-1]
    for side in sides[:-1]:
        arithmetic = _is_arithmetic(side)
        if arithmetic and not (_OPERATION.search(side) and equal(side, value, 0.0)):
            return text
        if not arithmetic and not _may_be_asked(side):
            return text
    return value


def stated_value(truth: str) -> str:
    """Returns the value in a truth such as ``V_1:V_2=11:21`` or ``m+n=5``; equations in x and y stay whole."""
    sides = _sides(truth)
    if len(sides) != 2:
        return truth
    left, value = sides
    if _SEGMENTS.fullmatch(left) or (_RATIO.fullmatch(left) and ":" in value) or _ASKED_FUNCTION.search(left):
        return value
    variables = _variables(left)
    asked = len(variables) > 1 and not set(variables) & set("xyzXYZ") and not _variables(value)
    return value if asked and _may_be_asked(left) else truth


def _sides(text: str) -> list[str]:
    """Returns the sides of an equation; ``2 = x`` is turned round."""
    if "=" not in text or _RELATION.search(text) or "\\begin" in text or len(parts(text)) > 1:
        return [text]
    sides = split(text, _EQUALS)
    if not all(sides):
        return [text]
    if len(sides) == 2 and _BARE_VARIABLE.fullmatch(sides[1]) and not _variables(sides[0]):
        sides.reverse()
    return sides


def is_number_like(text: str) -> bool:
    """Returns True if a text has no variables."""
    return not _variables(text)


def turned_round(text: str) -> str:
    """Returns ``x=2`` for ``2=x``, every other text as it is."""
    sides = _sides(text)
    return "=".join(sides) if len(sides) == 2 and _BARE_VARIABLE.fullmatch(sides[0]) else text


def _variables(side: str) -> list[str]:
    """Returns the variables of an expression, each as often as it occurs."""
    plain = _SUBSCRIPT.sub("", _TEXT.sub(" ", side))
    greek = [name for name in _COMMAND.findall(plain) if name in _GREEK]
    return greek + re.findall(r"[A-Za-z]", _COMMAND.sub(" ", plain))


def _is_arithmetic(side: str) -> bool:
    return (
        not _variables(side)
        and not _ASKED_FUNCTION.search(side)
        and "\\text" not in side
        and bool(re.search(r"\d", side))
    )


def _may_be_asked(side: str) -> bool:
    """Returns True if a question can ask for the value of an expression."""
    words = " ".join(_TEXT.findall(side)).lower()
    if any(word in CHANGING_WORDS for word in re.findall(r"[a-z]+", words)):
        return False
    if _ASKED_FUNCTION.search(side) or _SEGMENTS.fullmatch(side) or _RATIO.fullmatch(side):
        return True
    return len(_variables(side)) > 1 and not re.search(r"[A-Za-z]{3,}", _COMMAND.sub("", _TEXT.sub("", side)))
