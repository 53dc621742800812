"""Brings mathematics to one spelling: Unicode, LaTeX spacing, text commands, delimiters.

The spelling changes, never the value. Every string is accepted.
"""

# ruff: noqa: RUF001  this file is about characters that look alike

from __future__ import annotations

import re
import unicodedata

from verl_rsim.reward.math_grading.plain_text import to_latex, without_upright

_UNICODE = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"),
    **dict.fromkeys("×✕", r"\times "),
    **dict.fromkeys("·⋅∙", r"\cdot "),
    **dict.fromkeys("⁄∕÷", "/"),
    **dict.fromkeys("≤⩽", r"\leq "),
    **dict.fromkeys("≥⩾", r"\geq "),
    **dict.fromkeys("∅⌀", r"\emptyset "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\x00", ""),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”", '"'),
    "∞": r"\infty ",
    "π": r"\pi ",
    "θ": r"\theta ",
    "α": r"\alpha ",
    "β": r"\beta ",
    "≠": r"\neq ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "ℝ": r"\mathbb{R}",
    "≈": r"\approx ",
    "°": "°",
    "º": "°",
    "′": "'",
}
_TABLE = str.maketrans(_UNICODE)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n")
_SUPERSCRIPT_RUN = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ]+")
_VULGAR = re.compile(r"[¼-¾⅐-⅞]")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")

_COMMANDS = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?"), ""),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|quad|qquad)(?![A-Za-z])"), " "),
    (
        re.compile(
            r"\\(?:mathrm|textrm|textbf|textit|textnormal|mathbf|mathit|mbox|text|operatorname|mathsf|underline)\s*\{"
        ),
        r"\\text{",
    ),
    (re.compile(r"\\text\{([-+\d.,/%$]+)\}"), r"\1"),
    (re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\le(?![A-Za-z])|\\leqslant(?![A-Za-z])|<="), r"\\leq "),
    (re.compile(r"\\ge(?![A-Za-z])|\\geqslant(?![A-Za-z])|>="), r"\\geq "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\ne(?![A-Za-z])"), r"\\neq "),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degree(?![A-Za-z])"), "°"),
    (re.compile(r"\\(?:cdotp|ast)(?![A-Za-z])"), r"\\cdot "),
    (re.compile(r"\\[cdl]?dots[cobim]?(?![A-Za-z])"), r"\\ldots "),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    # The unit of "180 (days)" and of "5 \\Omega", where a digit precedes it.
    (re.compile(r"(?<=[\d}]) ?\\text\{ ?\(([a-z][a-z ]{2,30})\) ?\}$"), r"\\text{ \1}"),
    (re.compile(r"(?<=\d)(?:\\[ ,;]|[\s~])*\\(?:Omega|ohm)$"), r"\\text{ ohm}"),
    (re.compile(r"\{\s?,\s?\}|,\\! ?(?=\d)|,\\!"), ","),
    (
        re.compile(r"\\frac\{(\\text\{[^{}]{1,20}\}(?:\^\{?\d\}?)?)\}\{(\\text\{[^{}]{1,20}\}(?:\^\{?\d\}?)?)\}"),
        r"\1/\2",
    ),
    (re.compile(r"^\\text\{(?:the |my )?(?:final |correct )?answer(?: is|:| =)? ?:?\}\s?", re.IGNORECASE), ""),
    (
        re.compile(
            r"^\\text\{(?:the |my )?(?:final |correct )?answer(?: is|:| =) ?:? ?([-+$]{0,2}\d[^{}]{0,40})\}$",
            re.IGNORECASE,
        ),
        r"\1",
    ),
    (re.compile(r"\\(?:lvert|rvert|vert)(?![A-Za-z])"), "|"),
    (re.compile(r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\[,;:! ]|~|&nbsp;"), " "),
    (re.compile(r"\\([%$&#])"), r"\1"),
    (re.compile(r"(?<![A-Za-z\\])(?:infinity|oo|inf)(?![A-Za-z])", re.IGNORECASE), r"\\infty "),
]
# The closing dollar follows a character and precedes none: "$5 and $6" are amounts of money.
_INNER_DOLLARS = re.compile(r"(?<![\w\\])\$(?![\s$])([^$]{0,300}[^\s$\\])\$(?![\w.]\d|\w)")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z]{2})")
_MAY_HOLD_COMMANDS = re.compile(r"[\\{~=]|nf(?:inity)?(?![A-Za-z])|oo(?![A-Za-z])", re.IGNORECASE)
_INCHES = re.compile(r"(?<=\d)()\"$")
_DELIMITERS = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`")]


def tidy(text: str) -> str:
    """Returns the same mathematics in one spelling: ASCII where possible, plain spaces, no delimiters around it."""
    if not text.isascii():
        text = _ascii(text)
    text = text.replace("\x00", "").strip()
    if text.count("$") > 1:
        text = _INNER_DOLLARS.sub(r"\1", text)
    if "\\\\" in text and "\\begin" not in text:  # as JSON has it; between cells of a matrix it begins a row
        text = _DOUBLED.sub(r"\\", text)
    text = without_upright(text)
    for opening, closing in _DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            text = inner.strip() if closing not in inner and not inner.endswith("\\") else text
    if _MAY_HOLD_COMMANDS.search(text):
        for pattern, replacement in _COMMANDS:
            text = pattern.sub(replacement, text)
    text = to_latex(_INCHES.sub(r"\1\\text{ inches}", text))
    text = re.sub(r"\s+", " ", text).strip().rstrip(".,;:").strip()
    text = unwrap(text, "{", "}")
    listed = _TEXT.fullmatch(text)
    return listed.group(1).strip() if listed and "," in text else text


def _ascii(text: str) -> str:
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _VULGAR.sub(lambda sign: " " + unicodedata.normalize("NFKC", sign.group()), text)
    text = _ROOT.sub(lambda root: "\\sqrt{" + (root.group(1) or root.group(2) or "") + "}", text)
    # Translated twice: NFKC would turn some of the signs into others that are not in the table, and yields new ones.
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in text)


def unwrap(text: str, opening: str, closing: str) -> str:
    """Returns a text without the pairs of brackets that enclose all of it."""
    while len(text) >= 2 and text[0] == opening and text[-1] == closing and enclosed(text):
        text = text[1:-1].strip()
    return text


_OPENING, _CLOSING = "([{", ")]}"


def enclosed(text: str) -> bool:
    """Returns True if the last character closes the first bracket: ``[1,2)`` is enclosed, ``(1,2)(3,4)`` is not."""
    depth = 0
    for position, sign in enumerate(text):
        depth += (sign in _OPENING) - (sign in _CLOSING)
        if depth == 0 and sign in _CLOSING:
            return position == len(text) - 1
    return False


_ENVIRONMENT = re.compile(r"\\(begin|end)\{")


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Splits a text at the separators outside of all brackets and environments; the parts are stripped."""
    parts, depth, begin, position = [], 0, 0, 0
    while position < len(text):
        sign = text[position]
        if sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif environment := _ENVIRONMENT.match(text, position):
            depth += 1 if environment.group(1) == "begin" else -1
            position = environment.end() - 1
            continue
        if depth == 0 and (found := separator.match(text, position)) and found.end() > position:
            parts.append(text[begin:position].strip())
            begin = position = found.end()
        else:
            position += 1
    return [*parts, text[begin:].strip()]


_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ONE_SIGN = re.compile(r"(\^|_|\\sqrt)\s*\{(\w)\}")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")


def squash(text: str) -> str:
    """Removes layout: text commands, spaces (except between digits), braces around one character."""
    return _SPACE.sub("", _ONE_SIGN.sub(r"\1\2", _TEXT.sub(r"\1", text)))


def words(text: str) -> str:
    """Returns a text as plain lower-case words, for answers that are compared as strings."""
    return re.sub(r"[\s\"]+", " ", _TEXT.sub(r" \1 ", text).replace("_", " ")).strip(" .,;:!").lower()


_HALF_OF_DAY = re.compile(r"\s*\b([ap])\.? ?m\b\.?")


def same_phrase(given: str, wanted: str) -> bool:
    """Returns True if two texts have the same words; "6:00 p.m." is "6:00 PM", and "a.m." may be left out."""
    left, right = (_HALF_OF_DAY.sub(r" \1m", words(text)).strip() for text in (given, wanted))
    if left == right:
        return True
    halves = {text[-2:] for text in (left, right) if text.endswith((" am", " pm"))}
    return len(halves) == 1 and left.removesuffix(" am").removesuffix(" pm") == right.removesuffix(" am").removesuffix(
        " pm"
    )
