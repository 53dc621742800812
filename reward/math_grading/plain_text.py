"""Brings mathematics that is typed without LaTeX to LaTeX: ``2*pi``, ``sqrt(5)``, ``x**2``, ``sin(2x)``, ``1...``."""

from __future__ import annotations

import re

_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp gcd det max min"
_FUNCTION = re.compile(
    rf"(?<![A-Za-z\\])({'|'.join(_FUNCTIONS.split())})(?=\s?[\d(\\{{|^_]|\s[a-z](?![A-Za-z])|[xyzntabk](?![A-Za-z]))"
)
_PI = re.compile(r"(?<![A-Za-z\\])[pP]i(?![A-Za-z])")
_ROOT = re.compile(r"(?<![A-Za-z\\])(?:\\?sqrt|\\?cbrt)\s?\(([^()]{0,200})\)")
_BARE_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\s?(\d{1,20}|\{)")
_POWER = re.compile(r"\s?\*\*\s?")
_BRACKETED_POWER = re.compile(r"\^\s?\(([^()]{1,100})\)")
_SIGNED_POWER = re.compile(r"\^(-?\d{2,20}|-\d)(?![\d.])")
_STAR = re.compile(r"(?<=[\w)}\]])\s?\*\s?(?=[\w(\\\[-])")
_UPRIGHT = re.compile(r"\\(?:mathrm|textrm|mathit|operatorname|mathop|text)\s?\{\s?([eidπ]|[a-z]{2,6})\s?\}(?=(.?))")
_UPRIGHT_LETTER = re.compile(r"\\mathrm\s([eid])(?![A-Za-z])")
_TO_COMMAND = frozenset(_FUNCTIONS.split()) | {"lcm"}
_DIGITS_GO_ON = re.compile(r"(?<=\d)\s?(?:\\[lcd]?dots(?![A-Za-z])|\.{3}|…)")
_MAX_ROUNDS = 5


def to_latex(text: str) -> str:
    """Returns a text with the spelling of programs and of plain text replaced by LaTeX's."""
    if "..." in text or "dots" in text or "…" in text:
        text = _DIGITS_GO_ON.sub(r"\\ldots ", text)
    if "*" in text:
        text = _STAR.sub(r"\\cdot ", _POWER.sub("^", text))
    for _ in range(_MAX_ROUNDS):
        replaced = _ROOT.sub(_root, text)
        if replaced == text:
            break
        text = replaced
    text = _BARE_ROOT.sub(lambda found: "\\sqrt{" + (found[1] + "}" if found[1] != "{" else ""), text)
    text = _FUNCTION.sub(r"\\\1 ", text)
    text = _PI.sub(r"\\pi ", text)
    if "^" in text:
        text = _SIGNED_POWER.sub(r"^{\1}", _BRACKETED_POWER.sub(r"^{\1}", text))
    return text.replace("\\lg", "\\log_{10}")


def without_upright(text: str) -> str:
    """Returns ``e`` for ``\\mathrm{e}``, and ``\\ln`` for ``\\mathrm{ln}``."""
    return _UPRIGHT_LETTER.sub(r"\1", _UPRIGHT.sub(_upright, text)) if "\\" in text else text


def _upright(found: re.Match[str]) -> str:
    """Returns ``e`` for ``\\mathrm{e}`` and ``\\ln`` for ``\\mathrm{ln}``; other words stay as they are."""
    word = found.group(1)
    if word in _TO_COMMAND and not found.group().startswith("\\text{"):
        return f"\\{word} "
    single = word in ("e", "i", "d") and "mathrm" in found.group()
    return word if single else found.group()


def _root(found: re.Match[str]) -> str:
    return f"\\sqrt{'[3]' if 'cbrt' in found.group() else ''}{{{found.group(1)}}}"
