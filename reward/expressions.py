"""When two mathematical answers are the same: structure and exact numbers here, algebra by the caller's parser.

Lists, sets, tuples, intervals and matrices are taken apart and compared piece by piece, numbers exactly, words as
words. What remains, expressions with symbols, roots or functions, goes to ``equal``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from verl_rsim.reward.choices import option, truth_value
from verl_rsim.reward.notation import enclosed, split, squash, unwrap, words
from verl_rsim.reward.quantity import quantity, same_number
from verl_rsim.reward.units import unit_of

Equal = Callable[[str, str, float], bool]
"""Whether two expressions are equal, up to a relative tolerance (0: exactly): math-verify in a worker."""

_NOTHING = frozenset(
    {
        r"\emptyset",
        r"\{\}",
        "{}",
        "empty set",
        "the empty set",
        "no solution",
        "no solutions",
        "no real solutions",
        "none",
    }
)
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}|\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]\.?m\.?)?"
    r"|.*\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? .*\d.*",
    re.IGNORECASE,
)
_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z' -])+")
_BARE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_FUNCTION_NAMES = "sqrt sinh cosh tanh asin acos atan arcsin arccos arctan frac text"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_NAME = re.compile(
    r"((?:\\text\{[^{}]*\}|\\[A-Za-z]+(?![A-Za-z])|[A-Za-z|°' ]|_(?:\{\w+\}|\w)|\^\{-1\}|\(\w(?:, ?\w)*\))+)"
    r"(?:=|\\in )\s*"
)
_OPERATION = re.compile(r"\\(?:int|sum|prod|lim|binom|gcd|lcm|det|max|min)(?![A-Za-z])|!|\\frac\{d\}")
_MODULUS = re.compile(r"\s*\\(?:pmod|bmod|mod)\s*\{?\s*(\d+)\s*\}?$")
_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+)\}?")


def same_expression(given: str, wanted: str, equal: Equal) -> bool:
    """Whether two tidied answers are the same; raises what ``equal`` raises."""
    given = given.split("\\approx")[0].strip() or given  # what is said to be about something is what is said
    if given == wanted:
        return True
    if (number := quantity(unnamed(wanted))) is not None:
        answer = quantity(unnamed(unwrap_set(given)))
        return answer is not None and _names_agree(given, wanted) and same_number(answer, number)
    if (verdict := _same_words(given, wanted)) is not None:
        return verdict
    if squash(given) == squash(wanted):
        return True
    for compare in (_same_region, _same_list, _same_collection, _same_matrix, _same_in_base):
        if (verdict := compare(given, wanted, equal)) is not None:
            return verdict
    return _same_formula(given, wanted, equal)


def _same_words(given: str, wanted: str) -> bool | None:
    if words(wanted) in _NOTHING:
        return words(given) in _NOTHING
    if truth_value(wanted) is not None:
        return truth_value(given) is truth_value(wanted)
    if (letter := option(wanted)) is not None and option(given) is not None:
        return option(given) == letter
    if _DATE.fullmatch(wanted) or (("\\text{" in wanted or _BARE.search(wanted)) and _WORDS.fullmatch(wanted)):
        return words(given) == words(wanted) or (letter is not None and option(given) == letter)
    return None


def unwrap_set(text: str) -> str:
    """``\\{5\\}`` as ``5``: the only element of a set is the answer."""
    return text[2:-2].strip() if text.startswith("\\{") and text.endswith("\\}") else text


def unnamed(text: str) -> str:
    """``x = 5`` as ``5``; the left side must be a name, not an expression."""
    name = _NAME.match(text)
    return text[name.end() :] if name else text


def _names_agree(given: str, wanted: str) -> bool:
    left, right = _NAME.match(given), _NAME.match(wanted)
    return left is None or right is None or squash(left.group(1)) == squash(right.group(1))


# -- lists, sets and tuples -----------------------------------------------------------------------------------------

_WORD_SEPARATOR = (
    r"\s*[,;]?\s*\\text\{\s*,?\s*(?:and|or)\s*\}\s*|\s*[,;]\s*(?:and|or)\s|\s(?:and|or)\s"
    r"|\\(?:lor|land|vee|wedge)(?![A-Za-z])"
)
_SEPARATOR = re.compile(rf"{_WORD_SEPARATOR}|[,;]")
_SPACED_SEPARATOR = re.compile(rf"{_WORD_SEPARATOR}|(?<!\d)[,;]|[,;](?!\d{{3}}(?!\d))")


def parts(text: str) -> list[str]:
    """The members of a list; with spaces after its commas, ``1,000, 2,000`` has two."""
    return _with_both_signs(split(text, _SPACED_SEPARATOR if re.search(r"[,;]\s|\b(?:and|or)\b", text) else _SEPARATOR))


_BOTH_SIGNS = re.compile(r"\\pm(?![A-Za-z])")


def _with_both_signs(members: Sequence[str]) -> list[str]:
    signed = []
    for member in members:
        plus, minus = (_BOTH_SIGNS.sub(sign, member) for sign in "+-")
        signed += [member] if plus == member else [plus.removeprefix("+").strip(), minus]
    return signed


@dataclass(frozen=True, slots=True)
class _Collection:
    """What stands in brackets, e.g. ``[1, 2)``; ``\\{`` for a set, no brackets for a bare list."""

    opening: str
    closing: str
    members: tuple[str, ...]


def _collection(text: str) -> _Collection | None:
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        return _Collection("(", ")", tuple(parts(text[7:-7])))
    if text.startswith("\\{") and text.endswith("\\}") and enclosed(text):
        return _Collection("\\{", "\\}", tuple(parts(text[2:-2])))
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and enclosed(text):
        members = tuple(parts(text[1:-1]))
        return _Collection(text[0], text[-1], members) if len(members) > 1 else None
    return None


def _same_list(given: str, wanted: str, equal: Equal) -> bool | None:
    """Several solutions without brackets: in any order, a set or a list."""
    members = parts(wanted)
    if len(members) == 1:
        return False if len(parts(given)) > 1 and _collection(unnamed(wanted)) is None else None
    found = _collection(given)
    if found and found.opening != "\\{":
        return False
    return _any_order(found.members if found else parts(given), members, equal)


def _same_collection(given: str, wanted: str, equal: Equal) -> bool | None:
    target, found = _collection(unnamed(wanted)), _collection(unnamed(given))
    if target is None:
        return None
    bare = found is None
    if found is None:
        found = replace(target, members=tuple(parts(given)))
    if target.opening == "\\{":
        return found.opening == "\\{" and _any_order(found.members, target.members, equal)
    if (found.opening, found.closing) != (target.opening, target.closing) or (
        bare and target.opening + target.closing != "()"
    ):
        return False
    return _in_order(found.members, target.members, equal)


def _in_order(given: Sequence[str], wanted: Sequence[str], equal: Equal) -> bool:
    return len(given) == len(wanted) and all(same_expression(a, b, equal) for a, b in zip(given, wanted, strict=True))


def _any_order(given: Sequence[str], wanted: Sequence[str], equal: Equal) -> bool:
    if len(given) != len(wanted):
        return False
    left = list(given)
    for target in wanted:
        match = next((member for member in left if same_expression(member, target, equal)), None)
        if match is None:
            return False
        left.remove(match)
    return True


# -- intervals ------------------------------------------------------------------------------------------------------

_RELATION = re.compile(r"<|>|\\leq|\\geq")
_VARIABLE = re.compile(r"[A-Za-z]|\\(?!infty|pi|emptyset)[a-z]+")
_UNION = re.compile(r"\\cup(?![A-Za-z])\s*")
_OR = re.compile(r"\s*(?:,?\s*\\text\{\s*or\s*\}|,?\s\bor\b\s|\\lor(?![A-Za-z])|\\cup(?![A-Za-z]))\s*")
_REALS = frozenset({r"\mathbb{R}", r"\R", r"\Reals", "all real numbers", "all reals"})


def _same_region(given: str, wanted: str, equal: Equal) -> bool | None:
    """Intervals, their unions and inequalities, each of which may stand for the other."""
    if not any(
        _RELATION.search(text) or "\\cup" in text or words(text) in _REALS or text in _REALS for text in (given, wanted)
    ):
        return None
    found, target = _region(given), _region(wanted)
    if found is None or target is None or (found[0] and target[0] and found[0] != target[0]):
        return None
    return _any_order(found[1], target[1], equal)


def _region(text: str) -> tuple[str, list[str]] | None:
    """The variable, if named, and the intervals of a union."""
    text = unwrap(text, "{", "}")
    if text in _REALS or words(text) in _REALS:
        return "", [r"(-\infty,\infty)"]
    if _RELATION.search(text):
        pieces = [_from_inequality(piece) for piece in split(text, _OR)]
        names = {piece[0] for piece in pieces if piece}
        return (names.pop(), [piece[1] for piece in pieces if piece]) if all(pieces) and len(names) == 1 else None
    name = _NAME.match(text)
    pieces_of_union = split(text[name.end() :] if name else text, _UNION)
    brackets = all(_collection(piece) for piece in pieces_of_union)
    return (name.group(1).strip() if name else "", pieces_of_union) if brackets else None


def _from_inequality(text: str) -> tuple[str, str] | None:
    """``1 < x \\leq 2`` as the variable and ``(1,2]``."""
    sides = [side.strip() for side in _RELATION.split(text)]
    signs = _RELATION.findall(text)
    if len(signs) not in (1, 2):
        return None
    if len(signs) == 1 and _VARIABLE.fullmatch(sides[0]):
        sides, signs = [sides[1], sides[0]], [{"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq"}[signs[0]]]
    if not all(sides) or not _VARIABLE.fullmatch(sides[1]):
        return None
    up = signs[0] in ("<", "\\leq")
    if len(signs) == 1:
        bracket = signs[0].startswith("\\")
        low = ("[" if bracket else "(") + sides[0] + r",\infty)"
        high = r"(-\infty," + sides[0] + ("]" if bracket else ")")
        return sides[1], low if up else high
    if (signs[1] in ("<", "\\leq")) is not up:
        return None
    if not up:
        sides, signs = sides[::-1], signs[::-1]
    opening, closing = ("[" if signs[0][0] == "\\" else "("), ("]" if signs[1][0] == "\\" else ")")
    return sides[1], f"{opening}{sides[0]},{sides[2]}{closing}"


# -- matrices, bases, formulas --------------------------------------------------------------------------------------

_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)


def _matrix(text: str) -> tuple[bool, list[list[str]]] | None:
    """Whether it is a determinant, and the cells row by row."""
    found = _MATRIX.fullmatch(text.strip("()[] "))
    if not found or "\\begin" in found.group(2):
        return None
    rows = [row for row in found.group(2).split("\\\\") if row.strip()]
    return found.group(1) in ("vmatrix", "Vmatrix"), [[cell.strip() for cell in row.split("&")] for row in rows]


def _same_matrix(given: str, wanted: str, equal: Equal) -> bool | None:
    target, found = _matrix(unnamed(wanted)), _matrix(unnamed(given))
    if target is None or found is None:
        return None if target is None else False
    if target[0] != found[0] or len(target[1]) != len(found[1]):
        return False
    return all(_in_order(a, b, equal) for a, b in zip(found[1], target[1], strict=True))


def _same_in_base(given: str, wanted: str, equal: Equal) -> bool | None:
    """``1011_2``: the base may be left out, the digits must be the same."""
    target = _BASE.fullmatch(squash(wanted))
    if target is None:
        return None
    found = _BASE.fullmatch(squash(given))
    return found.groups() == target.groups() if found else squash(given) == target.group(1)


def _same_formula(given: str, wanted: str, equal: Equal) -> bool:
    if set(_OPERATION.findall(given)) - set(_OPERATION.findall(wanted)):
        return False  # an integral or a sum that has yet to be worked out
    (formula, unit), (target, wanted_unit) = _without_unit(unnamed(given)), _without_unit(unnamed(wanted))
    if any(word not in _FUNCTIONS and word not in wanted for word in _BARE.findall(formula)):
        return False  # prose; letters of a word are no product
    if "=" in formula or "=" in target:
        return "=" in given and "=" in wanted and equal(given, wanted, 0.0)
    if unit and wanted_unit and unit != wanted_unit:
        return False
    return _names_agree(given, wanted) and (formula == target or equal(formula, target, 0.0))


def _without_unit(text: str) -> tuple[str, str]:
    """``9\\pi\\text{ cm}^2`` as ``9\\pi`` and ``cm^2``; a modulus counts as a unit."""
    if modulus := _MODULUS.search(text):
        return text[: modulus.start()], modulus.group(1)
    start = text.find("\\text{", 1)
    unit = unit_of(text[start:]) if start > 0 else None
    return (text[:start].strip(), unit) if unit else (text, "")
