"""Reads the tags of thinking models: ``<think>...</think>`` and ``<answer>...</answer>``."""

from __future__ import annotations

_THINKING = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"))
_ANSWER = "<answer>"


def after_thinking(text: str) -> str | None:
    """Returns the text after the last block of thinking; None if the last block is never closed."""
    lowered = text.lower() if "<" in text else text
    if len(lowered) != len(text):  # a few letters change their length: positions would not fit
        lowered = text
    begin = 0
    for opening, closing in _THINKING:
        closed = lowered.rfind(closing)
        if lowered.rfind(opening) > closed:
            return None
        if closed >= 0:
            begin = max(begin, closed + len(closing))
    return text[begin:]


def tagged_answer(text: str) -> str | None:
    """Returns the content of the last ``<answer>``, which may be unclosed; None without one, or if it is empty."""
    start = text.rfind(_ANSWER)
    if start < 0:
        return None
    return text[start + len(_ANSWER) :].partition("</answer>")[0].strip() or None
