"""Compares two mathematical answers: structure and exact numbers here, algebra by the caller's parser.

Lists, sets, tuples, intervals and matrices are taken apart and compared member by member, numbers exactly, words as
words. The rest (expressions with symbols, roots or functions) goes to ``equal``.

The ``_same_...`` functions return None where the truth is not of the form that they compare, so that the next one
decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from verl_rsim.reward.math_grading.answer_labels import name_of, names_agree, strip_approximation, strip_name
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import split, squash, unwrap, words
from verl_rsim.reward.math_grading.quantities import Quantity, quantity, same_number
from verl_rsim.reward.math_grading.sequences import collection, parts
from verl_rsim.reward.math_grading.units import unit_of

Equal = Callable[[str, str, float], bool]
"""Returns True if two expressions are equal, up to a relative tolerance (0: exactly): math-verify in a worker."""

MAX_PAIRED = 20
"""Largest number of members without an identical partner that are compared pair by pair outside of a worker."""
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
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_FUNCTION_NAMES = "sqrt sinh cosh tanh asin acos atan arcsin arccos arctan frac text"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_OPERATION = re.compile(r"\\(?:int|sum|prod|lim|binom|gcd|lcm|det|max|min)(?![A-Za-z])|!|\\frac\{d\}")
_MODULUS = re.compile(r"\s*\\(?:pmod|bmod|mod)\s*\{?\s*(\d+)\s*\}?$")
_BASE = re.compile(r"([0-9A-F]+)_\{?(\d+)\}?")


def same_expression(given: str, wanted: str, equal: Equal) -> bool:
    """Returns True if two tidied answers are the same; raises what ``equal`` raises."""
    given = strip_approximation(given)
    if given == wanted:
        return True
    if (verdict := same_quantity(given, wanted)) is not None:
        return verdict
    if (verdict := _same_words(given, wanted)) is not None:
        return verdict
    if squash(given) == squash(wanted):
        return True
    for compare in (_same_region, _same_list, _same_collection, _same_matrix, _same_in_base):
        if (verdict := compare(given, wanted, equal)) is not None:
            return verdict
    return _same_formula(given, wanted, equal)


def same_quantity(given: str, wanted: str, is_number: bool = False) -> bool | None:
    """Returns True if a tidied answer is the number of the truth, with its unit; None if the truth is no number.

    Args:
        given: tidied answer.
        wanted: tidied ground truth.
        is_number: True if the truth is known to be a number, so that a letter after it is a unit and no variable.
    """
    given = strip_approximation(given)
    number, answer = quantity(strip_name(wanted)), quantity(strip_name(unwrap_set(given)))
    if number is None or not (is_number or number.clear or (answer and answer.clear and answer.unit == number.unit)):
        return None
    number = replace(number, clear=True)
    return answer is not None and names_agree(given, wanted) and same_number(answer, number)


def _same_words(given: str, wanted: str) -> bool | None:
    if words(wanted) in _NOTHING:
        return words(given) in _NOTHING
    if truth_value(wanted) is not None:
        return truth_value(given) is truth_value(wanted)
    if len(given) == len(wanted) == 1:
        return given == wanted if wanted.isalpha() and given.isalpha() else None  # a variable has its case
    if (letter := option(wanted)) is not None and option(given) is not None:
        return option(given) == letter
    if _DATE.fullmatch(wanted) or (("\\text{" in wanted or _WORD.search(wanted)) and _WORDS.fullmatch(wanted)):
        return words(given) == words(wanted) or (letter is not None and option(given) == letter)
    return None


def unwrap_set(text: str) -> str:
    """Returns ``5`` for ``\\{5\\}``: the only element of a set is the answer."""
    return text[2:-2].strip() if text.startswith("\\{") and text.endswith("\\}") else text


# -- lists, sets and tuples -----------------------------------------------------------------------------------------


def _same_list(given: str, wanted: str, equal: Equal) -> bool | None:
    """Compares several solutions without brackets: in any order, as a set or a list."""
    members = parts(wanted)
    if len(members) == 1:
        return False if len(parts(given)) > 1 and collection(strip_name(wanted)) is None else None
    found = collection(given)
    if found and found.opening != "\\{":
        return False
    answers = found.members if found else parts(given)
    if len({name_of(member) for member in members}) > 1 and not all(name_of(answer) for answer in answers):
        return _in_order(answers, members, equal)  # solutions of several unknowns: only their order says which is which
    return _any_order(answers, members, equal)


def _same_collection(given: str, wanted: str, equal: Equal) -> bool | None:
    target, found = collection(strip_name(wanted)), collection(strip_name(given))
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
    given_counts, wanted_counts = (Counter(map(_exact_key, members)) for members in (given, wanted))
    left, targets = _surplus(given, given_counts & wanted_counts), _surplus(wanted, given_counts & wanted_counts)
    if len(targets) > MAX_PAIRED:
        # The pairing below takes quadratic time. An ``equal`` that works only where time is bounded raises here.
        equal(left[0], targets[0], 0.0)
    for target in targets:
        match = next((member for member in left if same_expression(member, target, equal)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _exact_key(member: str) -> Quantity | str:
    number = quantity(member)
    return member if number is None or not number.clear else number


def _surplus(members: Sequence[str], matched: Counter[Quantity | str]) -> list[str]:
    """Returns the members that have no identical partner."""
    matched = matched.copy()
    rest = []
    for member in members:
        key = _exact_key(member)
        if matched[key] > 0:
            matched[key] -= 1
        else:
            rest.append(member)
    return rest


# -- intervals ------------------------------------------------------------------------------------------------------

_RELATION = re.compile(r"<|>|\\leq|\\geq")
_VARIABLE = re.compile(r"[A-Za-z]|\\(?!infty|pi|emptyset)[a-z]+")
_UNION = re.compile(r"\\cup(?![A-Za-z])\s*")
_OR = re.compile(r"\s*(?:,?\s*\\text\{\s*or\s*\}|,?\s\bor\b\s|\\lor(?![A-Za-z])|\\cup(?![A-Za-z]))\s*")
_REALS = frozenset({r"\mathbb{R}", r"\R", r"\Reals", "all real numbers", "all reals"})


def _same_region(given: str, wanted: str, equal: Equal) -> bool | None:
    """Compares intervals, their unions and inequalities; an interval may be given as an inequality and vice versa."""
    if not (_may_be_region(given) or _may_be_region(wanted)):
        return None
    region, target = _region(given), _region(wanted)
    if region is None or target is None:
        return None
    if region.variable and target.variable and region.variable != target.variable:
        return None
    return _any_order(region.intervals, target.intervals, equal)


def _may_be_region(text: str) -> bool:
    return bool(_RELATION.search(text)) or "\\cup" in text or words(text) in _REALS or text in _REALS


@dataclass(frozen=True, slots=True)
class _Region:
    """Union of intervals; ``variable`` is "" if it is not named."""

    variable: str
    intervals: list[str]


def _region(text: str) -> _Region | None:
    """Parses a union of intervals or inequalities; None if the text is neither."""
    text = unwrap(text, "{", "}")
    if text in _REALS or words(text) in _REALS:
        return _Region("", [r"(-\infty,\infty)"])
    if _RELATION.search(text):
        names, intervals = set(), []
        for piece in split(text, _OR):
            inequality = _from_inequality(piece)
            if inequality is None:
                return None
            names.add(inequality[0])
            intervals.append(inequality[1])
        return _Region(names.pop(), intervals) if len(names) == 1 else None
    pieces_of_union = split(strip_name(text), _UNION)
    brackets = all(collection(piece) for piece in pieces_of_union)
    return _Region(name_of(text) or "", pieces_of_union) if brackets else None


def _from_inequality(text: str) -> tuple[str, str] | None:
    """Returns ``x`` and ``(1,2]`` for ``1 < x \\leq 2``; None if the text is no inequality of one variable."""
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


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Cells of a matrix row by row; vertical bars around it make it a determinant."""

    is_determinant: bool
    rows: list[list[str]]


def _matrix(text: str) -> _Matrix | None:
    """Parses a matrix; None if the text is none, or has matrices inside of it."""
    match = _MATRIX.fullmatch(text.strip("()[] "))
    if not match or "\\begin" in match.group(2):
        return None
    rows = []
    for row in match.group(2).split("\\\\"):
        if row.strip():
            rows.append([cell.strip() for cell in row.split("&")])
    return _Matrix(match.group(1) in ("vmatrix", "Vmatrix"), rows)


def _same_matrix(given: str, wanted: str, equal: Equal) -> bool | None:
    target, matrix = _matrix(strip_name(wanted)), _matrix(strip_name(given))
    if target is None or matrix is None:
        return None if target is None else False
    if target.is_determinant != matrix.is_determinant or len(target.rows) != len(matrix.rows):
        return False
    return all(_in_order(row, other, equal) for row, other in zip(matrix.rows, target.rows, strict=True))


def _same_in_base(given: str, wanted: str, equal: Equal) -> bool | None:
    """Compares numbers in a base, ``1011_2``: the base may be left out, the digits must be the same."""
    target = _BASE.fullmatch(squash(wanted))
    if target is None:
        return None
    found = _BASE.fullmatch(squash(given))
    if found or target.group(1).isalpha():  # A_1 is a name
        return found is not None and found.groups() == target.groups()
    return squash(given) == target.group(1)


def _same_formula(given: str, wanted: str, equal: Equal) -> bool:
    if set(_OPERATION.findall(given)) - set(_OPERATION.findall(wanted)):
        return False  # an integral or a sum that is still to be worked out, which sympy would do
    (formula, unit), (target, wanted_unit) = _without_unit(strip_name(given)), _without_unit(strip_name(wanted))
    if [words(text) for text in _TEXT.findall(formula)] != [words(text) for text in _TEXT.findall(target)]:
        return False  # math-verify would ignore the words
    if any(word not in _FUNCTIONS and word not in wanted for word in _BARE.findall(formula)):
        return False  # prose: math-verify would read a word as a product of its letters
    if "=" in formula or "=" in target:
        return "=" in given and "=" in wanted and equal(given, wanted, 0.0)
    if unit and wanted_unit and unit != wanted_unit:
        return False
    return names_agree(given, wanted) and (formula == target or equal(formula, target, 0.0))


def _without_unit(text: str) -> tuple[str, str]:
    """Returns ``9\\pi`` and ``cm^2`` for ``9\\pi\\text{ cm}^2``; a modulus counts as a unit."""
    if modulus := _MODULUS.search(text):
        return text[: modulus.start()], modulus.group(1)
    start = text.find("\\text{", 1)
    unit = unit_of(text[start:]) if start > 0 else None
    return (text[:start].strip(), unit.name) if unit else (text, "")
