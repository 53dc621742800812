"""Extracts from a text the answer that it states, in time linear in its length.

The answer is the content of the last complete ``\\boxed``; else what follows the last ``####`` or "answer is"; else,
by the type of the answer, the last number, the last option letter or the last line. Of several boxes the last is the
answer. The answer is not interpreted here.
"""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

from verl_rsim.reward.math_grading.vocabulary import LEADING_WORDS

MAX_BOX_CHARS = 10_000
"""Longest content of a box; a box that is not closed by then is ignored."""
MAX_BOXES = 20
"""Broken boxes examined, from the last one backwards; bounds the time for a text full of them."""
TAIL_CHARS = 20_000
"""Length of the end of the text that is searched where there is no box."""


class Fallback(Enum):
    """Places to look for the answer of a text that marks none."""

    NUMBER = "number"
    OPTION = "option"
    LINE = "line"


_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACE = re.compile(r"\\[{}\\]|[{}]")


def last_boxed(text: str) -> str | None:
    """Returns the content of the last complete ``\\boxed{...}`` or ``\\fbox{...}``, or the word after a bare one.

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
            # Going backwards: a box that ends before the one found begins is an earlier one. Else it encloses it.
            if last and span[1] < last[1]:
                break
            last = span
    return _unwrap_box(text[slice(*last)].strip()) if last else None


def _unwrap_box(content: str) -> str:
    """Returns the content of the inner box if a box holds nothing but another box."""
    inner = _BOX.match(content)
    span = _span(content, inner.end()) if inner else None
    return content[slice(*span)].strip() if span and span[1] >= len(content) - 1 else content


def _span(text: str, begin: int) -> tuple[int, int] | None:
    """Returns the start and end of a box's content, given the end of its command; None if it is not closed."""
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
    """Returns the answer that a text states, as written there; None if it states none."""
    if (boxed := last_boxed(text)) is not None:
        return boxed or None
    tail = text[-TAIL_CHARS:]
    hashes, statement = _last_match(_HASHES, tail), _last_match(_ANSWER_IS, tail)
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


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    # A deque of one: a list of all matches would take memory in proportion to a hostile text.
    return deque(pattern.finditer(text), maxlen=1)[0] if pattern.search(text) else None


def _statement(line: str) -> str | None:
    """Returns the answer in the words after "answer is": the formula at their start, their only number, or all."""
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
    numbers = _NUMBER.findall(words)
    if len(numbers) == 1 and not re.search(r"[\\=+^{}<>]|\b(?:or|not)\b", words):
        start = words.index(numbers[0])
        return words[start:] if _only_leads_in(words[:start]) else words
    return words or None


def _only_leads_in(words: str) -> bool:
    """Returns True if words before a number do not change it: "the total cost," but not "twice" or "the root of"."""
    if not re.fullmatch(r"[A-Za-z ,:']*", words):
        return False
    names = re.findall(r"[A-Za-z]+(?='s\b)?", words.replace("'s", ""))
    return all(len(name) == 1 or name.lower() in LEADING_WORDS for name in names)
