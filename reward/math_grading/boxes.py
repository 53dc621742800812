"""Finds the content of ``\\boxed`` and ``\\fbox`` commands, in time linear in the length of the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BOX_CHARS = 10_000
"""Longest content of a box; a box that is not closed by then states no answer."""
MAX_BOXES = 20
"""Boxes examined, from the last one backwards; bounds the time for a text full of broken ones."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_WORD = re.compile(r"[^\s${}]{0,1000}[^\s${}.,;:]")
_JOINED = re.compile(r"[\s$\\()\[\]]{0,8}(?:and|,|;|,\s?and|\\text\{\s?and\s?\})[\s$\\()\[\]]{0,8}")
_NEGATED = re.compile(r"(?:\bnot|n't|\bnever)[\s$\\(\[]{1,6}$", re.IGNORECASE)
MAX_GAP_CHARS = 30


@dataclass(frozen=True, slots=True)
class Box:
    """Content of a box and the positions of the command's first and last character."""

    content: str
    start: int
    end: int


def has_box(text: str) -> bool:
    """Returns True if a text begins a box, even one that is never closed."""
    return any(
        _BOX.search(text, position) for position in (text.rfind("\\boxed"), text.rfind("\\fbox")) if position >= 0
    )


def last_boxed(text: str) -> str | None:
    """Returns the content of the last complete ``\\boxed{...}`` or ``\\fbox{...}``, or the word after a bare one.

    Returns:
        None if there is no such box, or if a box is too long to be one.
    """
    box = _last_box(text, len(text))
    return box.content if box else None


def boxed_answer(text: str) -> str | None:
    """Returns the answer in a text's boxes: the last one, with those that "and" or a comma joins to it.

    Returns:
        None if there is no complete box, or the text says that it is not the answer.
    """
    box = _last_box(text, len(text))
    if box is None or _NEGATED.search(text[max(0, box.start - 20) : box.start]):
        return None
    contents, start = [box.content], box.start
    while len(contents) < MAX_BOXES:
        earlier = _last_box(text[max(0, start - 500) : start], min(start, 500))
        if earlier is None:
            break
        gap = text[max(0, start - 500) :][earlier.end : start - max(0, start - 500)]
        if len(gap) > MAX_GAP_CHARS or not _JOINED.fullmatch(gap):
            break
        contents.append(earlier.content)
        start = max(0, start - 500) + earlier.start
    return ", ".join(reversed(contents))


def _last_box(text: str, end: int) -> Box | None:
    """Returns the last complete box that begins before a position."""
    last: tuple[int, int, int] | None = None
    start = end
    for _ in range(MAX_BOXES):
        start = max(text.rfind("\\boxed", 0, start), text.rfind("\\fbox", 0, start))
        if start < 0:
            break
        opening = _BOX.match(text, start)
        if opening is None:
            continue
        span = _span(text, opening.end())
        if span is None:
            if last is None and len(text) - start > MAX_BOX_CHARS:
                return None
            continue
        # Going backwards: a box that ends before the one found begins is an earlier one. Else it encloses it.
        if last and span[1] < last[2]:
            break
        last = (start, *span)
    if last is None:
        return None
    return Box(_unwrap(text[last[1] : last[2]].strip()), last[0], last[2] + (text[last[2] : last[2] + 1] == "}"))


def _unwrap(content: str) -> str:
    """Returns the content of the inner box if a box holds nothing but another box."""
    inner = _BOX.match(content)
    span = _span(content, inner.end()) if inner else None
    return content[slice(*span)].strip() if span and span[1] >= len(content) - 1 else content


def _span(text: str, begin: int) -> tuple[int, int] | None:
    """Returns the start and end of a box's content, given the end of its command; None if it is not closed."""
    begin += len(text[begin : begin + MAX_BOX_CHARS]) - len(text[begin : begin + MAX_BOX_CHARS].lstrip())
    if not text.startswith("{", begin):
        word = _WORD.match(text, begin)
        return word.span() if word else None
    depth = 0
    for brace in _BRACE.finditer(text, begin, begin + MAX_BOX_CHARS):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return begin + 1, brace.start()
    return None
