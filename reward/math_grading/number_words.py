"""Parses numbers in English words: ``twenty-one``, ``two thirds``, ``three hundred and five``."""

from __future__ import annotations

import re
from fractions import Fraction

_NAMES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: number for number, word in enumerate(_NAMES.split())} | {
    word: 20 + 10 * place for place, word in enumerate(_TENS.split())
}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
}
_PARTS |= {"halve": 2, "tenth": 10}
_NUMERALS = frozenset([*_SMALL, "hundred", *_LARGE])
_WORD = re.compile(r"([a-z]+)(?:[ -]+|$)")
MAX_NUMERALS = 20


def spelled_number(text: str) -> str | None:
    """Replaces the number in words at the start of a text by digits; None if there is none, or it is malformed."""
    text = text.lower()
    sign = ""
    if lead := re.match(r"(?:minus|negative) ", text):
        sign, text = "-", text[lead.end() :]
        if text[:1].isdigit():
            return sign + text
    numerals: list[str] = []
    position = 0
    while (found := _WORD.match(text, position)) and len(numerals) < MAX_NUMERALS:
        word = found.group(1)
        following = _WORD.match(text, found.end())
        joins = word == "and" and numerals and following is not None and following.group(1) in _NUMERALS
        if word not in _NUMERALS and not joins:
            break
        numerals.append(word)
        position = found.end()
    if not numerals or (value := _cardinal(numerals)) is None:
        return None
    found = _WORD.match(text, position)
    if found and (part := _PARTS.get(found.group(1).removesuffix("s"))):
        if text[found.end() :].strip():
            return None
        return f"{sign}{Fraction(value).numerator}/{part}"
    return f"{sign}{value} {text[position:]}".strip()


def _cardinal(words: list[str]) -> int | None:
    """Returns 305 for ``three hundred and five``; None if the words do not form a number."""
    total, group, limit = 0, 0, 10**15
    room = 1000  # upper bound of the next word: 1000 at the start of a group, 10 after twenty
    for place, word in enumerate(words):
        if word == "and":
            if words[place - 1] != "hundred" and words[place - 1] not in _LARGE:
                return None
        elif word == "hundred":
            if not 0 < group < 100 or room == 100:
                return None
            group, room = group * 100, 100
        elif word in _LARGE:
            if not group or _LARGE[word] >= limit:
                return None
            limit = _LARGE[word]
            total, group, room = total + group * limit, 0, 1000
        else:
            number = _SMALL[word]
            if number >= room or (not number and len(words) > 1):
                return None
            group, room = group + number, 10 if number >= 20 else 0
    return total + group
