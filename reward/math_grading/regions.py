"""Reads regions of the number line: intervals, inequalities, set-builder notation, unions, ``x \\neq 2``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verl_rsim.reward.math_grading.answer_labels import name_of, strip_name
from verl_rsim.reward.math_grading.normalize import split, unwrap, words
from verl_rsim.reward.math_grading.sequences import collection

_RELATION = re.compile(r"<|>|\\leq|\\geq")
_VARIABLE = re.compile(r"[A-Za-z]|\\(?!infty|pi|emptyset)[a-z]+")
_OR = re.compile(
    r"\s?(?:,?\s?\\text\{\s?(?:or|and|,? ?or)\s?\}|,?\s?\bor\b\s?|\\(?:lor|vee|cup)(?![A-Za-z]))\s?"
    r"|;\s|,\s?(?=[a-z]\s?(?:<|>|\\[lgn]eq))"
)
_AND = re.compile(r"\s?(?:,?\s?\\text\{\s?and\s?\}|,?\s?\band\b\s?|\\(?:land|wedge|cap)(?![A-Za-z])|,)\s?")
_REALS = frozenset({r"\mathbb{R}", r"\R", r"\Reals", "all real numbers", "all reals", "all real x", "R"})
_BUILDER = re.compile(
    r"\\\{\s?([A-Za-z])(?:\s?\\in\s?(?:\\mathbb\s?\{?R\}?|\\R|R))?\s?"
    r"(?:\\mid|\||:|\\colon|\\text\{ ?(?:such that|where) ?\})(.*)\\\}"
)
_DOMAIN = re.compile(
    r"[A-Za-z]\s?\\in\s?\\(?:mathbb\s?\{?R\}?|R)\s?(?:[,;:]|\\text\{ ?(?:with|and|such that),? ?\})\s?"
)
_EXCLUDED = re.compile(r"([A-Za-z])\s?\\neq\s?(.+)|\\mathbb\{R\}\s?(?:\\setminus|\\backslash|-)\s?\\\{(.+)\\\}")
_EXCEPT = re.compile(
    r"(?:x ?\\in ?)?(?:\\mathbb\{R\}|\\text\{ ?)?(?:all )?(?:real numbers?|reals)?(?: x)?,? ?(?:\\text\{ ?)?"
    r"except (?:for |at |when )?\}? ?(?:x ?= ?)?(-?[\d.]{1,20}|-?\\frac\{\d{1,9}\}\{\d{1,9}\})\}?",
    re.IGNORECASE,
)
_INTERVAL = re.compile(r"[\[(].*[\])]")
_POINT = re.compile(r"\\\{([^,{}]{1,60})\\\}")


@dataclass(frozen=True, slots=True)
class Region:
    """Union of intervals; ``variable`` is "" if it is not named."""

    variable: str
    intervals: list[str]


def may_be_region(text: str) -> bool:
    """Returns True if a text has a sign of a region in it."""
    return (
        bool(_RELATION.search(text))
        or any(sign in text for sign in (r"\cup", r"\neq", r"\setminus", "except"))
        or _is_reals(text)
    )


def region(text: str) -> Region | None:
    """Parses a union of intervals or inequalities; None if the text is neither."""
    text = unwrap(text, "{", "}")
    if builder := _BUILDER.fullmatch(text):
        text = builder.group(2).strip()
    text = _DOMAIN.sub("", text, count=1).strip()
    if _is_reals(text):
        return Region("", [r"(-\infty,\infty)"])
    if excluded := _EXCLUDED.fullmatch(text):
        return _without_point(excluded)
    if excepted := _EXCEPT.fullmatch(text):
        return Region("", [rf"(-\infty,{excepted.group(1)})", rf"({excepted.group(1)},\infty)"])
    if _RELATION.search(text):
        return _from_inequalities(text)
    text = strip_name(text)
    pieces = split(text, _OR)
    if len(pieces) > 1 and any(map(_INTERVAL.fullmatch, pieces)):
        pieces = _joined([_POINT.sub(r"[\1,\1]", piece) for piece in pieces])
    brackets = all(
        _INTERVAL.fullmatch(piece) and (found := collection(piece)) and len(found.members) == 2 for piece in pieces
    )
    return Region(name_of(text) or "", pieces) if brackets else None


def _joined(pieces: list[str]) -> list[str]:
    """Returns ``[0,1]`` for ``[0,1)`` and ``[1,1]``: intervals that share an end which one of them contains."""
    joined: list[str] = []
    for piece in pieces:
        last, found = collection(joined[-1]) if joined else None, collection(piece)
        meet = last and found and len(last.members) == len(found.members) == 2 and last.members[1] == found.members[0]
        if last and found and meet and (last.closing == "]" or found.opening == "["):
            joined[-1] = f"{last.opening}{last.members[0]},{found.members[1]}{found.closing}"
        else:
            joined.append(piece)
    return joined


def _is_reals(text: str) -> bool:
    return text in _REALS or words(text) in _REALS


def _without_point(excluded: re.Match[str]) -> Region | None:
    value = (excluded.group(2) or excluded.group(3)).strip()
    if "," in value or "\\neq" in value or "\\text" in value:
        return None
    return Region(excluded.group(1) or "", [rf"(-\infty,{value})", rf"({value},\infty)"])


def _from_inequalities(text: str) -> Region | None:
    """Parses ``x < 1 or x > 3``, and ``x > 1 and x < 3`` as one interval."""
    both = [_from_inequality(piece) for piece in split(text, _AND)]
    if len(both) == 2 and both[0] and both[1] and both[0][0] == both[1][0]:
        joined = _intersection(both[0][1], both[1][1])
        if joined and not re.search(r"\bor\b|\\lor|\\vee|\\cup", text):
            return Region(both[0][0], [joined])
    names, intervals = set(), []
    for piece in split(text, _OR):
        inequality = _from_inequality(piece)
        if inequality is None:
            return None
        names.add(inequality[0])
        intervals.append(inequality[1])
    return Region(names.pop(), intervals) if len(names) == 1 else None


_NUMERAL = re.compile(r"-?\d+(?:\.\d+)?")


def _intersection(one: str, other: str) -> str | None:
    """Returns ``[a,b)`` for ``[a,\\infty)`` and ``(-\\infty,b)``; None for other pairs, and for an empty one."""
    if one.startswith(r"(-\infty,"):
        one, other = other, one
    if not (one.endswith(r",\infty)") and other.startswith(r"(-\infty,")):
        return None
    low, high = one[1 : -len(r",\infty)")], other[len(r"(-\infty,") : -1]
    if _NUMERAL.fullmatch(low) and _NUMERAL.fullmatch(high) and float(low) > float(high):
        return None
    return f"{one[0]}{low},{high}{other[-1]}"


def _from_inequality(text: str) -> tuple[str, str] | None:
    """Returns ``x`` and ``(1,2]`` for ``1 < x \\leq 2``; None if the text is no inequality of one variable."""
    sides = [side.strip() for side in _RELATION.split(text)]
    signs = _RELATION.findall(text)
    if len(signs) not in (1, 2):
        return None
    if len(signs) == 1 and _VARIABLE.fullmatch(sides[0]):
        sides, signs = [sides[1], sides[0]], [{"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq"}[signs[0]]]
    if not all(sides) or not _VARIABLE.fullmatch(sides[1]):
        return None
    up = signs[0] in ("<", "\\leq")
    if len(signs) == 1:
        bracket = signs[0].startswith("\\")
        low = ("[" if bracket else "(") + sides[0] + r",\infty)"
        high = r"(-\infty," + sides[0] + ("]" if bracket else ")")
        return sides[1], low if up else high
    if (signs[1] in ("<", "\\leq")) is not up:
        return None
    if not up:
        sides, signs = sides[::-1], signs[::-1]
    opening, closing = ("[" if signs[0][0] == "\\" else "("), ("]" if signs[1][0] == "\\" else ")")
    return sides[1], f"{opening}{sides[0]},{sides[2]}{closing}"
