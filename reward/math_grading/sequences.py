"""Splits answers of several members: lists with commas, semicolons or words between them, sets, tuples, intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verl_rsim.reward.math_grading.normalize import enclosed, split, squash

_WORD_SEPARATOR = (
    r"\s?[,;]?\s?\\text\{\s?,?\s?(?:and|or)\s?\}\s?|\s?[,;]\s?(?:and|or)\s|\s(?:and|or)\s"
    r"|(?<=[)\]}\d])(?:and|or)(?=[(\[\\\d-])|\\(?:lor|land|vee|wedge)(?![A-Za-z])"
)
_SEPARATOR = re.compile(rf"{_WORD_SEPARATOR}|[,;]")
_SPACED_SEPARATOR = re.compile(rf"{_WORD_SEPARATOR}|(?<!\d)[,;]|[,;](?!\d{{3}}(?!\d))")


def parts(text: str) -> list[str]:
    """Returns the members of a list; ``x \\pm 1`` counts as two."""
    # With spaces after its separators, commas without a space belong to numbers: ``1,000, 2,000`` has two members.
    spaced = re.search(r"[,;]\s|\b(?:and|or)\b", text)
    return _with_both_signs(split(text, _SPACED_SEPARATOR if spaced else _SEPARATOR))


_BOTH_SIGNS = re.compile(r"\\pm(?![A-Za-z])")


def _with_both_signs(members: Sequence[str]) -> list[str]:
    signed = []
    for member in members:
        plus, minus = (_BOTH_SIGNS.sub(sign, member) for sign in "+-")
        signed += [member] if plus == member else [plus.removeprefix("+").strip(), minus]
    return signed


_CUP = re.compile(r"\s?\\cup(?![A-Za-z])\s?")


@dataclass(frozen=True, slots=True)
class Collection:
    """Members and brackets of a set (``\\{``), tuple or interval, e.g. ``[1, 2)``."""

    opening: str
    closing: str
    members: tuple[str, ...]


def collection(text: str) -> Collection | None:
    """Parses what stands in brackets; None for a bare list, and for one member in brackets, which may only group."""
    if "\\cup" in text and (union := _union(text)) is not None:
        return union
    if text.startswith("\\{") and text.endswith("\\}") and enclosed(text):
        return Collection("\\{", "\\}", tuple(parts(text[2:-2])))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and enclosed(text):
        members = tuple(parts(text[1:-1]))
        return Collection(text[0], text[-1], members) if len(members) > 1 else None
    return None


def _union(text: str) -> Collection | None:
    """Returns the union of sets that list their members, each member once; None if a part is anything else."""
    sets = [collection(piece) for piece in split(text, _CUP)]
    members: list[str] = []
    for found in sets:
        if found is None or found.opening != "\\{":
            return None
        members += found.members
    return Collection("\\{", "\\}", tuple(dict.fromkeys(map(squash, members))))
