"""Brings an answer to the wording of the truth where both say the same: ratios, qualifiers, names of arguments.

Only the wording changes; what the words stand for is compared afterwards.
"""

from __future__ import annotations

import re

from verl_rsim.reward.math_grading.normalize import squash

_RATIO = re.compile(r"[^:\s]{1,60}(?:\s?:\s?[^:\s]{1,60}){1,9}")
_RATIO_WORD = re.compile(r"\s?(?:\\text\{ ?to ?\}|\bto\b)\s?")
_QUALIFIER = re.compile(r",?\s?(?:\\text\{,? ?)?\bfor (?:all|any|every|each|some|arbitrary)\b.{1,120}", re.DOTALL)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_HEAD = re.compile(r"([A-Za-z]'{0,3}\([^=()]{1,40}\))\s?=(?!=)")
_FUNCTION = re.compile(r"([A-Za-z])\(([a-z])\)\s?=\s?(.+)", re.DOTALL)


def reworded(given: str, wanted: str) -> tuple[str, str]:
    """Returns a tidied answer and truth with the same wording, where a difference in it means nothing.

    ``2 to 5`` becomes ``2:5`` if the truth is a ratio, ``for all x`` in the truth may be left out, and the
    argument of ``f(n)=2n`` is renamed to that of the truth ``f(x)=2x``.
    """
    if _RATIO.fullmatch(wanted) and ":" not in given:
        given = _RATIO_WORD.sub(":", given)
    qualifier = _QUALIFIER.search(wanted)
    if qualifier and qualifier.start() and not _QUALIFIER.search(given):
        wanted = wanted[: qualifier.start()].strip()
    return _with_argument(given, wanted), wanted


def functions_differ(given: str, wanted: str) -> bool:
    """Returns True if both are values of functions, but not of the same one at the same place."""
    ours, theirs = _HEAD.match(given), _HEAD.match(wanted)
    return ours is not None and theirs is not None and squash(ours.group(1)) != squash(theirs.group(1))


def _with_argument(given: str, wanted: str) -> str:
    """Returns ``f(x)=2x+1`` for ``f(n)=2n+1`` if the truth is a function of x and has no n."""
    ours, theirs = _FUNCTION.fullmatch(given), _FUNCTION.fullmatch(wanted)
    if ours is None or theirs is None or ours.group(1) != theirs.group(1):
        return given
    old, new = ours.group(2), theirs.group(2)
    if old == new or old in _COMMAND.sub("", theirs.group(3)) or new in _COMMAND.sub("", ours.group(3)):
        return given

    def renamed(part: re.Match[str]) -> str:
        return new if part.group() == old else part.group()

    return f"{ours.group(1)}({new})={re.sub(rf'{_COMMAND.pattern}|{old}', renamed, ours.group(3))}"
