"""Reads matrices in LaTeX's environments, and those that are typed as ``[[1, 2], [3, 4]]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verl_rsim.reward.math_grading.quantities import quantity
from verl_rsim.reward.math_grading.sequences import collection

_FACTOR = re.compile(r"(-|[^&\s=+]{0,59}?[^&\s=+*/^(-])(?:\\cdot)?\s?(?=\\begin\{)")
_ENVIRONMENT = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells of a matrix row by row; vertical bars around it make it a determinant."""

    is_determinant: bool
    rows: list[list[str]]

    @property
    def is_column(self) -> bool:
        """True if each row has one cell."""
        return all(len(row) == 1 for row in self.rows)


def matrix(text: str) -> Matrix | None:
    """Parses a matrix; None if the text is none, or has matrices inside of it."""
    body, factor = text.strip("()[] "), ""
    if (scaled := _FACTOR.match(body)) is not None:
        factor, body = scaled.group(1), body[scaled.end() :]
    match = _ENVIRONMENT.fullmatch(body)
    if not match:
        return _nested_lists(text)
    if "\\begin" in match.group(2):
        return None
    rows = []
    for row in match.group(2).split("\\\\"):
        if row.strip():
            rows.append([_times(factor, cell.strip()) for cell in row.split("&")])
    return Matrix(match.group(1) in ("vmatrix", "Vmatrix"), rows)


def _times(factor: str, cell: str) -> str:
    """Returns a cell times the factor before a matrix, worked out if both are numbers."""
    if not factor:
        return cell
    one, other = quantity("-1" if factor == "-" else factor), quantity(cell)
    if one is None or other is None or one.unit or other.unit:
        return f"{factor}({cell})"
    value = one.value * other.value
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator != 1 else str(value.numerator)


def vector(text: str) -> list[str] | None:
    """Returns the members of a row or column, as a matrix or a tuple of several numbers; None if it is neither."""
    if found := matrix(text):
        if found.is_determinant or not (found.is_column or len(found.rows) == 1):
            return None
        return [cell for row in found.rows for cell in row]
    tuple_of = collection(text)
    return list(tuple_of.members) if tuple_of and tuple_of.opening in ("(", "[") else None


def _nested_lists(text: str) -> Matrix | None:
    outer = collection(text)
    if outer is None or outer.opening != "[" or outer.closing != "]":
        return None
    rows = [collection(row) for row in outer.members]
    found = [list(row.members) for row in rows if row is not None and row.opening == "["]
    same_length = len(found) == len(outer.members) and len({len(row) for row in found}) == 1
    return Matrix(False, found) if same_length else None
