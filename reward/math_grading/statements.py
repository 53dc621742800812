"""Finds the answer in a sentence that states it: "the answer is 5", "#### 5", "Answer: x = 5"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verl_rsim.reward.math_grading.vocabulary import CHANGING_WORDS

MAX_STATEMENT_CHARS = 2_000
"""Longest statement; what follows is not looked at."""

MAX_LEAD_CHARS = 300
"""Longest statement whose leading words are looked at."""

# All repetitions are bounded or begin with another character than what precedes them, so that the time is linear.
_MARKER = re.compile(
    r"(?:(?<![^\W_])(?:answer|result|solution)s?(?![^\W_])"
    r"(?:[ \t]{1,3}(?:to|of)[ \t](?:the|this)[ \t](?:question|problem))?"
    r"[ \t*_]{0,8}(?:\bis\b|\bare\b|\bwas\b|\b(?:must|should|would|will|has[ \t]to|can[ \t]only)[ \t]be\b"
    r"|[:=：](?!=)|[-–—]{1,2}(?=[ \t])|→|➜|⇒)|答案[是为：:]{1,2}|(?<![\w])\\text\{(?:the[ ])?answer(?:[ ]is)?:?[ ]?\})",  # noqa: RUF001
    re.IGNORECASE,
)
_WEAK = re.compile(r"(?:result|solution)", re.IGNORECASE)
_NEGATED = re.compile(r"[ \t]{0,4}(?:not\b|n't\b|never\b|neither\b)", re.IGNORECASE)
_NO_ANSWER = re.compile(r"\banswers?\s(?:isn|aren|wasn|can)(?:['’]t|not)\b", re.IGNORECASE)  # noqa: RUF001
_HASHES = re.compile(r"####[ \t]{0,8}([^\n]{1,2000})")
_LEAD = re.compile(
    r"(?:[\s:*_=]|\b(?:therefore|thus|hence|simply|just|approximately|about|exactly|then|so|option|choice)\b)+",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\(((?:(?!\\\)).)+)\\\)|\\\[((?:(?!\\\]).)+)\\\]", re.DOTALL)
_GOES_ON = re.compile(r"\s{0,4}(?:,\s{0,4}(?=[\d$\\(-])|=|\band\b|\bor\b|%|\^|[-+*/]\s{0,2}[\d$\\]|[A-Za-z(°])")
_SENTENCE_END = re.compile(
    r"[.!?](?:\s|\*|$)|[,;]?\s(?:because|since|which|as|so|where|I hope|i\.e)\b|\s\(|;\s|\n",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"[\s,.;*(]{0,8}(?:or\b(?!\s(?:simply|equivalently|about|approximately|roughly|\$?\\approx))|maybe\b|perhaps\b|possibly\b|alternatively\b)",
    re.IGNORECASE,
)
NUMBER = re.compile(
    r"(?<![\w.^_{:])-?[$€£]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?(?:/\d+(?:\.\d+)?)?%?(?![\d^_]|:\d)",
    re.IGNORECASE,
)
_REMARK = re.compile(
    rf"({NUMBER.pattern}(?: [A-Za-z]{{3,20}})?),\s([A-Za-z][A-Za-z ',-]{{1,200}})\W{{0,4}}", re.IGNORECASE
)
_COPULA = re.compile(r"\b(?:is|are|equals|was|be)\b[\s:]{0,4}(?!not\b)")
_CHANGE = re.compile(
    r"\b(?:de|in)creased? (?:of|by) $|\b(?:drop|decline|loss|reduction|fall|fell|declined|dropped) (?:of|by) $"
)
_NOUN = re.compile(r"(\s[A-Za-z ]{2,40})(?:[.!]|$)", re.MULTILINE)
_MATHEMATICS = re.compile(r"[\\+^{}<>|]")


@dataclass(frozen=True, slots=True)
class Statement:
    """Statement of an answer.

    Attributes:
        text: what the sentence says after its marker.
        start: position of the marker in the text.
        negated: True if the sentence says that this is not the answer.
        after_hashes: True if the marker is ``####``.
    """

    text: str
    start: int
    negated: bool = False
    after_hashes: bool = False


def last_statement(text: str) -> Statement | None:
    """Returns the last sentence of a text that states an answer; None if there is none."""
    found = _last_marker(text)
    hashes = text.rfind("####")
    if hashes >= 0 and (found is None or hashes > found.start() or _WEAK.match(found.group())):
        line = _HASHES.match(text, hashes)
        return Statement(line.group(1), hashes, after_hashes=True) if line else None
    if found is None:
        negation = _NO_ANSWER.search(text)
        return Statement("", negation.start(), negated=True) if negation else None
    rest = text[found.end() : found.end() + MAX_STATEMENT_CHARS]
    return Statement(_first_lines(rest), found.start(), negated=_NEGATED.match(rest) is not None)


def _last_marker(text: str) -> re.Match[str] | None:
    """Returns the last marker with something after it; "result" and "solution" count only without "answer"."""
    strong: re.Match[str] | None = None
    weak: re.Match[str] | None = None
    for found in _MARKER.finditer(text):
        if not text[found.end() : found.end() + 40].strip(" *_:\n\t$"):
            continue
        if _WEAK.match(found.group()):
            weak = found
        else:
            strong = found
    return strong or weak


def _first_lines(rest: str) -> str:
    """Returns the first line with content; a formula in display form reaches over several lines."""
    stripped = rest.lstrip(" \t\n*_:")
    if stripped.startswith(("\\[", "$$")):
        end = stripped.find("\\]" if stripped[0] == "\\" else "$$", 2)
        if end > 0:
            return stripped[: end + 2].replace("\n", " ")
    line, _, following = stripped.partition("\n")
    return f"{line}\n{following.lstrip()[:40]}"


def stated_answer(statement: Statement) -> str | None:
    """Returns the answer in a statement: the formula at its start, its only number, or all words of it.

    Returns:
        None if it states none.
    """
    words = statement.text
    if lead := _LEAD.match(words):
        words = words[lead.end() :]
    if formula := _FORMULA.match(words):
        rest = words[formula.end() :]
        if not _GOES_ON.match(rest) or re.match(r"\s(?:as|is|because|since|in|for|which)\b", rest):
            return _content(formula)
        noun = _NOUN.match(rest)
        if noun and not any(word.lower() in CHANGING_WORDS for word in noun.group(1).split()):
            return f"{_content(formula)}\\text{{{noun.group(1)}}}"
    if end := _SENTENCE_END.search(words, 1):
        words = words[: end.start()]
    words = _without_remark(words)
    words = words.replace("**", "").strip().rstrip(".,;:").strip()
    return _without_lead(words) or None


def _without_remark(words: str) -> str:
    """Returns ``72`` for ``72, in total``: a remark after a number has no digit and nothing that changes the number."""
    remark = _REMARK.fullmatch(words.strip())
    if remark is None or any(word.lower() in CHANGING_WORDS for word in re.findall(r"[A-Za-z]+", remark.group(2))):
        return words
    return remark.group(1)


def _content(formula: re.Match[str]) -> str | None:
    return next(group for group in formula.groups() if group is not None).strip() or None


def _without_lead(words: str) -> str:
    """Returns ``15`` for ``the largest n is 15`` and ``a total of 15``."""
    if len(words) > MAX_LEAD_CHARS:
        return words  # the search for a lead below takes quadratic time
    for copula in _COPULA.finditer(words):
        lead = words[: copula.start()].replace("$", "")
        if _harmless(lead) and re.search(r"[\d\\$]", words[copula.end() :]):
            return _without_lead(words[copula.end() :].strip())
    numbers = NUMBER.findall(words)
    if len(numbers) == 1 and not _MATHEMATICS.search(words) and "=" not in words:
        start = words.index(numbers[0])
        if re.search(r"\b(?:or|not)\b", words):
            return words
        return words[start:] if _harmless(words[:start]) else words
    return words


def _harmless(lead: str) -> bool:
    """Returns True if words before a number do not change it: "the total cost," but not "twice" or "the root of"."""
    if not re.fullmatch(r"[A-Za-z ,:'-]*", lead) or _CHANGE.search(lead):
        return False
    return all(word.lower() not in CHANGING_WORDS for word in re.findall(r"[A-Za-z]+", lead))


def is_hedged(statement: Statement, answer: str) -> bool:
    """Returns True if an alternative follows a stated answer: ``15 (or 16)``, ``B. Or C.``."""
    place = statement.text.find(answer)
    return place >= 0 and _HEDGE.match(statement.text.lstrip("$"), place + len(answer)) is not None
