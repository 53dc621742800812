"""Reads lists of solutions: of one unknown (``n=3, 5, 7``), of several (``k=45, n=2``), or of several more than once.

Solutions of one unknown have no order, ``x_1`` and ``x_2`` included. Those of several unknowns go by their names or, on
a side without names, by the order in which the other side names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from verl_rsim.reward.math_grading.answer_labels import name_of, strip_name
from verl_rsim.reward.math_grading.sequences import collection, parts

_SUBSCRIPT = re.compile(r"_(?:\{.*\}|.)$")


@dataclass(frozen=True, slots=True)
class Solutions:
    """Solutions of named unknowns.

    Attributes:
        names: the unknowns, in the order of the text; empty if no member has a name.
        groups: values, one group of ``len(names)`` a solution; for a single unknown one group with all of them.
    """

    names: tuple[str, ...]
    groups: list[list[str]]

    @property
    def several(self) -> bool:
        """True if there is more than one unknown."""
        return len(self.names) > 1

    def in_order_of(self, names: Sequence[str]) -> list[list[str]] | None:
        """Returns the groups with their values in another order of the names; None if the names are others."""
        if sorted(names) != sorted(self.names):
            return None
        places = [self.names.index(name) for name in names]
        return [[group[place] for place in places] for group in self.groups]


def solutions(text: str) -> Solutions | None:
    """Returns the solutions in a list without brackets; None if its names follow no pattern."""
    members = parts(text)
    names: list[str] = []
    for member in members:
        name = name_of(member) or (names[-1] if names else "")
        names.append(name)
    values = [strip_name(member) for member in members]
    letters = {_SUBSCRIPT.sub("", name) for name in names}
    if len(letters) == 1:
        letter = letters.pop()
        return Solutions((letter,) if letter else (), [values])
    unknowns = list(dict.fromkeys(names))
    if "" in unknowns or names != unknowns * (len(names) // len(unknowns)):
        return None
    count = len(unknowns)
    return Solutions(tuple(unknowns), [values[start : start + count] for start in range(0, len(values), count)])


def as_tuples(text: str) -> str:
    """Returns ``(5,3), (7,3)`` for ``p=5, q=3; p=7, q=3``; other texts as they are."""
    found = solutions(text)
    if found is None or not found.several:
        return text
    return ", ".join(f"({','.join(group)})" for group in found.groups)


def unnamed_groups(text: str, size: int) -> list[list[str]] | None:
    """Returns groups of values from tuples or a bare list, for a truth of several unknowns; None if they do not fit."""
    text = strip_name(text)
    whole = collection(text)
    members = list(whole.members) if whole else parts(text)
    tuples = [collection(member) for member in members]
    if all(member is not None for member in tuples):
        return [list(member.members) for member in tuples if member is not None and len(member.members) == size]
    return [members] if len(members) == size else None
