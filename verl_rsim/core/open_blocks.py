r"""Finds a code fence or a display formula that a text opens and does not close.

A step that ends inside one would be torn: a program at its blank line, a formula at its line break. Fences follow
CommonMark (three or more backticks or tildes at the beginning of a line), formulas are ``$$``, ``\[`` and
``\begin{...}``. What stands inside a fence is code: it opens no formula.
"""

from __future__ import annotations

import re

FENCES = ("```", "~~~", "````", "~~~~")
"""Fences that :func:`closing_fence` closes; longer ones are too rare to reserve room for."""

_FENCE = re.compile(r"\s*(?:(?:[-*+>]|\d+[.)])\s+)*(`{3,}|~{3,})(.*)")
"""A line that opens or closes a fence, also inside a list or a quotation."""
_FORMULA = re.compile(r"(?<!\\)(\$\$|\\\[|\\\]|\\begin\{[A-Za-z]+\*?\}|\\end\{[A-Za-z]+\*?\})")
_INLINE_CODE = re.compile(r"(`{1,2})(?!`).+?(?<!`)\1(?!`)")


def is_open(text: str) -> bool:
    """Returns True if ``text`` ends inside a code fence or a display formula."""
    fence, prose = _open_fence(text)
    return bool(fence) or _in_formula(prose)


def closing_fence(text: str) -> str:
    """Returns the line that closes the code fence that ``text`` leaves open; empty if there is none in :data:`FENCES`.

    It begins a line of its own, whether ``text`` ends with a line break or not.
    """
    fence, _ = _open_fence(text)
    return f"\n{fence}" if fence in FENCES else ""


def _open_fence(text: str) -> tuple[str, str]:
    """Returns the fence that is still open at the end (empty if none is), and the text outside all fences."""
    fence = ""
    prose: list[str] = []
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line)
        if not fence:
            # Backticks behind an opening fence of backticks make it inline code: ```like this```.
            if match and not (match[1][0] == "`" and "`" in match[2]):
                fence = match[1]
            else:
                prose.append(line)
        elif match and match[1].startswith(fence) and not match[2].strip():
            fence = ""
    return fence, "\n".join(prose)


def _in_formula(prose: str) -> bool:
    r"""Returns True if the last ``$$``, ``\[`` or ``\begin`` of the text is not closed."""
    opened: list[str] = []
    for mark in _FORMULA.findall(_INLINE_CODE.sub("", prose)):
        if mark == "$$":
            opener, closes = mark, mark in opened
        else:
            opener, closes = _opener(mark), mark == r"\]" or mark.startswith(r"\end")
        if not closes:
            opened.append(opener)
        elif opener in opened:
            # What was opened inside and never closed ends with it.
            del opened[opened.index(opener) :]
    return bool(opened)


def _opener(mark: str) -> str:
    r"""Returns the mark that opens what ``mark`` opens or closes: ``\[`` for ``\]``."""
    return mark.replace(r"\]", r"\[").replace(r"\end", r"\begin")
