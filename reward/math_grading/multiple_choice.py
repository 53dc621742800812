"""Parses answers that choose: the letter of an option, yes or no."""

from __future__ import annotations

import re

from verl_rsim.reward.math_grading.normalize import words

_TRUE, _FALSE = frozenset({"true", "yes"}), frozenset({"false", "no"})
_DECORATION = str.maketrans("[]{}", "()()", "$*\\'\"`‘’“”「」")  # noqa: RUF001
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:option|choice|answer)\s*(?:is\b|:)?\s*)?(?:\(\s*([A-J])\s*\)|([A-J])(?=[.:)]|,\s(?:since|because|as|for|which)\b|\s*$))[.:)]?\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
# "E: a polygenic score" names one option, with an article; "A is" after another letter names a second one.
_NAMED = r"(?:[B-HJ]\b|[AI]\b(?!\s(?!is\b|are\b|or\b|and\b|may\b|might\b|could\b|can\b|if\b)[a-z]{2}))"
_ANOTHER = re.compile(rf"\(\s*[A-J]\s*\)|(?:\b(?:or|and)\b|[,/&])\s*\(?{_NAMED}|^{_NAMED}", re.IGNORECASE)


def truth_value(text: str) -> bool | None:
    """Returns True for yes and true, False for no and false, else None; a reason may follow after a comma."""
    first = re.split(r"[,.;:]", words(text), maxsplit=1)[0].strip()
    if first in _TRUE:
        return True
    return False if first in _FALSE else None


def option(text: str) -> str | None:
    """Returns the letter of ``B``, ``(B)``, ``B.``, ``option b``, ``\\text{(B)}`` or ``(B) 42``; else None."""
    found = _LETTER.fullmatch(_TEXT.sub(r"\1", text).translate(_DECORATION).strip())
    if not found or _ANOTHER.search(found.group(3)):
        return None
    return (found.group(1) or found.group(2)).upper()
