"""Finds the answer of a text that marks none: the last number, option, truth value or line.

A number inside a formula, after a negation or in a list is not the answer; the formula or the list around it is.
"""

from __future__ import annotations

import re
from enum import Enum

from verl_rsim.reward.math_grading.statements import NUMBER
from verl_rsim.reward.math_grading.units import is_measure
from verl_rsim.reward.math_grading.vocabulary import CHANGING_WORDS, QUALIFIERS

MAX_SENTENCE_CHARS = 1_000
"""Longest end of a text in which an unmarked answer is looked for."""

MAX_OPTION_CHARS = 4_000
"""Length of the end of a text in which an option is looked for."""


class Fallback(Enum):
    """Places to look for the answer of a text that marks none."""

    NUMBER = "number"
    OPTION = "option"
    LINE = "line"
    TRUTH = "truth"


_SENTENCE_BORDER = re.compile(r"(?<=[.!?])[*\"')]{0,4}\s|\n|(?<=[.!?])\*\*")
_CLAUSE_BORDER = re.compile(r"[,;:](?=\s)|\s(?:so|but|because|since|thus|therefore|hence|which|i\.e\.)\s")
_DOUBTFUL = re.compile(
    r"\b(?:not|never|neither|nor|cannot|rather|instead|maybe|perhaps|possibly|probably|candidates?|either|guess|wrong|incorrect|"
    r"between|at least|at most|less|fewer|more than|greater)\b|n't\b",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\(([^\\]{1,300}(?:\\[^()][^\\]{0,300}){0,50})\\\)")
_BARE_FORMULA = re.compile(r"(?:^|\s)(-?[\d.]{0,20}[\\√]\S{1,100}?)[.!]?$")
_POINT = re.compile(r"(\([^()]{1,60},[^()]{1,60}\))[.!]?$")
_DENIED_AFTER = re.compile(
    r"\??\s{0,3}\(?(?:or|not)\b|\s{0,3}\?|[ \w]{0,20}\b(?:is|are|was|were)\s(?:not|wrong|incorrect|too|impossible)\b",
    re.IGNORECASE,
)
_LIST_BEFORE = re.compile(r"[\d)}$](?:\s{0,3},\s{0,3}|,?\s{1,3}(?:or|and)\s{1,3})[$\\(]{0,3}$", re.IGNORECASE)
_OPERATOR_BEFORE = re.compile(r"(?:[-+*/^×÷·√!<>_(]|\\(?:times|cdot|div))\s{0,3}$")  # noqa: RUF001
_OPERATOR_AFTER = re.compile(r"\s{0,3}(?:[-+*/^×÷·!]|\\(?!%))")  # noqa: RUF001
_WORD_AFTER = re.compile(r"\$?\s{0,3}(\\?%|[A-Za-z°]+(?:\^\{?\d\}?)?)")
_FALL_BEFORE = re.compile(r"\b(?:fell|decreased|declined|dropped|shrank|went down)\sby\s[$€£]?$")
_LAST_NOUN = re.compile(r"\s([a-z]{3,20}s)\W{0,4}$")
_SCALES = frozenset(
    ["hundred", "thousand", "million", "billion", "trillion", "dozen", "percent", "pct", "degrees", "degree"]
)


def unmarked_answer(text: str, place: Fallback) -> str | None:
    """Returns the last thing of a kind that a text says; None if it says none, or more than one."""
    if place is Fallback.OPTION:
        return last_option(text)
    if place is Fallback.NUMBER:
        return last_number(text)
    lines = text.strip().rsplit("\n", 1)
    line = lines[-1].strip()[-MAX_SENTENCE_CHARS:]
    return last_truth(line) if place is Fallback.TRUTH else _plain_line(line)


def _plain_line(line: str) -> str | None:
    return line.replace("**", "").strip().rstrip(".,;:").strip() or None


# -- numbers ----------------------------------------------------------------------------------------------------------


def last_number(text: str) -> str | None:
    """Returns the number, or the formula, at the end of the last sentence that has a digit."""
    end = max(map(text.rfind, "0123456789"))
    if end < 0:
        return None
    window = text[max(0, end - MAX_SENTENCE_CHARS) : end + 60]
    place = min(end, MAX_SENTENCE_CHARS)
    begin, stop = 0, len(window)
    for border in _SENTENCE_BORDER.finditer(window):
        if border.end() <= place:
            begin = border.end()
        else:
            stop = border.start()
            break
    sentence = window[begin:stop].replace("**", "").strip()
    alone = _alone(sentence)
    return alone if alone else _in_sentence(sentence)


def _alone(sentence: str) -> str | None:
    """Returns a sentence that is nothing but a formula: ``$x = 5$``, ``x = 5``."""
    plain = sentence.strip().rstrip(".,;:").strip()
    formula = _FORMULA.fullmatch(plain)
    if formula:
        return next(group for group in formula.groups() if group is not None).strip()
    return plain if re.fullmatch(r"[^\s=]{1,20} ?= ?\S{1,100}", plain) else None


def _in_sentence(sentence: str) -> str | None:
    digits = max(map(sentence.rfind, "0123456789"))
    for formula in _FORMULA.finditer(sentence):
        if formula.start() < digits < formula.end():
            content = next(group for group in formula.groups() if group is not None).strip()
            return _checked(sentence, formula.start(), formula.end(), content)
    head, sign, tail = sentence.rpartition("=")
    if sign and re.search(r"\d", tail):
        return _after_equals(head, tail)
    numbers = [number for number in NUMBER.finditer(sentence) if number.end() > digits]
    bare = _BARE_FORMULA.search(sentence)
    if bare or not numbers:  # inside a formula, a power, a time or a name
        return _checked(sentence, bare.start(1), bare.end(1), bare.group(1)) if bare else None
    if point := _POINT.search(sentence):
        return _checked(sentence, point.start(1), point.end(1), point.group(1))
    number = numbers[-1]
    before, after = sentence[: number.start()], sentence[number.end() :]
    if _OPERATOR_BEFORE.search(before) or (len(after) > 1 and _OPERATOR_AFTER.match(after)):
        return None
    return _checked(sentence, number.start(), number.end(), number.group().rstrip(","))


def _after_equals(head: str, tail: str) -> str | None:
    """Returns what stands after the last equals sign, without the words that follow."""
    if _DOUBTFUL.search(tail) or re.search(r"\d[^=]{0,40}\bor\b[^=]{0,40}$", head):
        return None
    plain = tail.strip().rstrip(".,;:$").strip()
    if not (number := NUMBER.match(plain)):
        return plain
    rest = plain[number.end() :]
    if re.match(r"\s{0,3}(?:[-+*/^×÷·!\\(,≠<>]|or\b|and \d)", rest):  # noqa: RUF001
        return plain
    return number.group().rstrip(",") + _unit_after(rest)


def _checked(sentence: str, start: int, end: int, answer: str) -> str | None:
    """Returns an answer with its unit; None after a negation or a hedge; the whole list if it ends one."""
    before, after = sentence[:start], sentence[end:]
    clause_start = 0
    for border in _CLAUSE_BORDER.finditer(before):
        if not _LIST_BEFORE.search(before):
            clause_start = border.end()
    clause = before[clause_start:]
    if _DOUBTFUL.search(clause) or _DOUBTFUL.match(after.strip()) or _DENIED_AFTER.match(after):
        return None
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", clause[-40:])]
    if words and (words[-1] in CHANGING_WORDS or (words[-1] == "of" and words[-2:][0] in CHANGING_WORDS)):
        return None
    if _LIST_BEFORE.search(before):
        return sentence
    change = "a decrease of " if _FALL_BEFORE.search(clause) else ""
    return change + answer + _unit_after(after)


def _unit_after(rest: str) -> str:
    """Returns the unit, percent sign or scale right after a number; other nouns do not change it."""
    found = _WORD_AFTER.match(rest)
    if not found:
        return ""
    word = found.group(1)
    if word in ("%", "\\%"):
        return "%"
    name = re.split(r"[\^]", word)[0]
    if name == "in" and re.match(r"\s[a-z]", rest[found.end() :]):
        return ""  # "60 in total" is no length
    if name.lower() in _SCALES or name.lower() in CHANGING_WORDS or (is_measure(name) and len(name) > 1):
        return f" {word}"
    # A noun that ends the sentence is the unit of what was asked: 4000 bananas are not 4000 ml.
    noun = _LAST_NOUN.fullmatch(rest)
    return f" {noun.group(1)}" if noun and noun.group(1) not in QUALIFIERS else ""


# -- options ----------------------------------------------------------------------------------------------------------

_OPTION = re.compile(
    r"\(([A-J])\)|\[([A-J])\]"
    r"|\b(?:option|choice|[Ss]o|[Tt]hus|[Hh]ence|[Tt]herefore|choose|pick|select|be|is|are|[Oo]ption|[Cc]hoice|chosen)(?:[:,]|\sis:?)?[\s*$\"'(\[:]{1,6}"
    r"(?:(?:option|choice|\\text\{|\\boxed\{)[\s*(]{0,3})?([A-J])(?![\w'])"
    r"|^[^\w\n]{0,12}([A-J])[^\w\n]{0,12}$|^[^\w\n]{0,6}([A-J])[.):](?=[\s*])|\b([A-J])\sis\s(?:the\s)?(?:correct|right|best|answer)\b",
    re.MULTILINE,
)
_DENIED = re.compile(
    r"[)\]*.:]{0,3}\s{1,3}(?:is|are|was)\s(?:wrong|incorrect|not|false|invalid|impossible)|[)\]]{0,2} can(?:not|'t)",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"\s[a-z]")
_ANOTHER = re.compile(r"[)\].*]{0,4},?\s{1,3}\(?[Oo]r\)?\b|\s?/\s?\(?[A-J]\b")
_LOWER_CASE = re.compile(r"\(?([a-j])(?:\)?[.:]?|[.):]{1,2}\s[^\n]{1,200})")
_NOT_BEFORE = re.compile(r"(?:\bnot|n't|\bnever)\s[^.\n]{0,15}$", re.IGNORECASE)


def last_option(text: str) -> str | None:
    """Returns the letter of the option that a text names last as its choice; None if there is none, or a hedge."""
    letter = None
    text = text[-MAX_OPTION_CHARS:]
    for found in _OPTION.finditer(text):
        group = next(place for place in range(1, 7) if found.group(place))
        after, before = text[found.end() : found.end() + 30], text[max(0, found.start() - 20) : found.start()]
        article = group == 3 and found.group(3) in "AI" and _ARTICLE.match(after)
        if article or _DENIED.match(after) or _NOT_BEFORE.search(before + found.group()[:0]):
            continue
        if re.search(r"\b(?:[Oo]r|/)\s?$", before) and letter:
            letter = None
            continue
        letter = None if _ANOTHER.match(after) else found.group(group)
    if letter is None and (alone := _LOWER_CASE.fullmatch(text.strip())):
        return alone.group(1).upper()
    return letter


# -- true and false ---------------------------------------------------------------------------------------------------

_TRUTH = re.compile(r"\b(true|false|yes|no)\b", re.IGNORECASE)


def last_truth(line: str) -> str | None:
    """Returns the truth value that the last sentence of a line states; None if it states none, or denies one."""
    for sentence in reversed(_SENTENCE_BORDER.split(line)):
        values = {value.lower() for value in _TRUTH.findall(sentence)}
        if not values:
            continue
        if re.search(r"\b(?:not|never|if|whether|or)\b|n't\b", sentence, re.IGNORECASE) and len(sentence.split()) > 2:
            first = re.match(r"\W{0,4}(yes|no|true|false)\b[\W]", sentence, re.IGNORECASE)
            return first.group(1) if first else None
        return values.pop() if len(values) == 1 else None
    return None
