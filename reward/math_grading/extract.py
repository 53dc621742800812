"""The answer that a text states. Linear in the text's length; what the answer means is not decided here.

The order is: the last complete ``\\boxed``, else the last ``####`` or "answer is", else what the type of
the answer allows: the last number, the last option letter or the last line. Several boxes are one answer, the last.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

from verl_rsim.reward.math_grading.vocabulary import LEADS

MAX_BOX_CHARS = 10_000
"""A box that is still open after so many characters is not closed for us."""
MAX_BOXES = 20
"""Broken boxes looked at, from the last one backwards."""
TAIL_CHARS = 20_000
"""Without a box, the answer is looked for in the end of the text only."""


class Fallback(Enum):
    """Where an answer is when the text marks none."""

    NUMBER = "number"
    OPTION = "option"
    LINE = "line"


_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACE = re.compile(r"\\[{}\\]|[{}]")


def last_boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` or ``\\fbox{...}`` with balanced braces, or the word after a bare one.

    Returns:
        None if there is no such box.
    """
    last: tuple[int, int] | None = None
    start = len(text)
    for _ in range(MAX_BOXES):
        start = max(text.rfind("\\boxed", 0, start), text.rfind("\\fbox", 0, start))
        if start < 0:
            break
        opening = _BOX.match(text, start)
        if opening and (span := _span(text, opening.end())):
            if last and span[1] < last[1]:
                break  # it ends before the last one begins; otherwise the last one is inside it
            last = span
    content = text[slice(*last)].strip() if last else None
    if (
        content
        and (inner := _BOX.match(content))
        and (span := _span(content, inner.end()))
        and span[1] >= len(content) - 1
    ):
        return content[slice(*span)].strip()
    return content


def _span(text: str, begin: int) -> tuple[int, int] | None:
    """Where the content of a box begins and ends, given the end of its command."""
    begin += len(text[begin : begin + MAX_BOX_CHARS]) - len(text[begin : begin + MAX_BOX_CHARS].lstrip())
    if not text.startswith("{", begin):
        word = re.compile(r"[^\s${}]*[^\s${}.,;:]").match(text, begin, begin + MAX_BOX_CHARS)
        return word.span() if word else None
    depth = 0
    for brace in _BRACE.finditer(text, begin, begin + MAX_BOX_CHARS):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return begin + 1, brace.start()
    return None


_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_ANSWER_IS = re.compile(r"\banswer(?:s\b)?[ \t]*(?:\*\*)?[ \t]*(?:is|are|:|=)([^\n]*)(?:\n\s*([^\n]+))?", re.IGNORECASE)
_LEAD = re.compile(r"(?:[\s:*]|\b(?:therefore|thus|hence|simply|approximately|about|option|choice)\b)+", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SENTENCE_END = re.compile(r"[.!?](?:\s|\*|$)|[,;]?\s(?:because|since|which|as|so|where|I hope)\b|\s\(", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.])-?[$€£]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?(?:/\d+(?:\.\d+)?)?%?", re.IGNORECASE
)
_OPTION = re.compile(r"\(([A-J])\)|(?:option|choice)(?::|\s+is:?)?\s+\(?([A-J])\b|^\W*([A-J])\W*$", re.MULTILINE)


def find_answer(text: str, fallback: Fallback = Fallback.NUMBER) -> str | None:
    """The answer a text states, as it stands there; None if it states none."""
    if (boxed := last_boxed(text)) is not None:
        return boxed or None
    tail = text[-TAIL_CHARS:]
    hashes, statement = _last(_HASHES, tail), _last(_ANSWER_IS, tail)
    if hashes and (not statement or hashes.start() > statement.start()):
        return _statement(hashes.group(1))
    if statement:
        return _statement(statement.group(1)) or _statement(statement.group(2) or "")
    if fallback is Fallback.LINE:
        lines = tail.strip().splitlines()
        return _statement(lines[-1]) if lines else None
    if fallback is Fallback.OPTION:
        options = _OPTION.findall(tail)
        return "".join(options[-1]) if options else None
    numbers = _NUMBER.findall(tail)
    return numbers[-1].rstrip(",") if numbers else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return deque(pattern.finditer(text), maxlen=1)[0] if pattern.search(text) else None


def _statement(line: str) -> str | None:
    """The answer in the words after "answer is": the formula they begin with, or their only number, or all of them."""
    words = line[: 4 * TAIL_CHARS]
    if lead := _LEAD.match(words):
        words = words[lead.end() :]
    if formula := _FORMULA.match(words):
        if not re.match(r"\s*(?:,|and\b|or\b|\w)", words[formula.end() :]):
            return next(group for group in formula.groups() if group is not None).strip() or None
        return words.strip().rstrip(".")
    if end := _SENTENCE_END.search(words, 1):
        words = words[: end.start()]
    words = words.replace("**", "").strip().rstrip(".,;:").strip()
    if words and len(found := _NUMBER.findall(words)) == 1 and not re.search(r"[\\=+^{}<>]|\b(?:or|not)\b", words):
        start = words.index(found[0])
        return words[start:] if _leads(words[:start]) else words
    return words or None


def _leads(words: str) -> bool:
    """Whether words before a number leave it as it is: "the total cost," but not "twice" or "the square root of"."""
    if not re.fullmatch(r"[A-Za-z ,:']*", words):
        return False
    names = re.findall(r"[A-Za-z]+(?='s\b)?", words.replace("'s", ""))
    return all(len(name) == 1 or name.lower() in LEADS for name in names)
