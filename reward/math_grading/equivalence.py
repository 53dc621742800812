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

from verl_rsim.reward.math_grading.answer_labels import names_agree, strip_approximation, strip_name
from verl_rsim.reward.math_grading.left_sides import asked_value, is_number_like, stated_value, turned_round
from verl_rsim.reward.math_grading.matrices import matrix, vector
from verl_rsim.reward.math_grading.multiple_choice import option, truth_value
from verl_rsim.reward.math_grading.normalize import same_phrase, squash, words
from verl_rsim.reward.math_grading.quantities import Quantity, quantity, same_number
from verl_rsim.reward.math_grading.regions import may_be_region, region
from verl_rsim.reward.math_grading.rewording import functions_differ, reworded
from verl_rsim.reward.math_grading.sequences import collection, parts
from verl_rsim.reward.math_grading.solutions import Solutions, as_tuples, solutions, unnamed_groups
from verl_rsim.reward.math_grading.units import same_unit, unit_of


@dataclass(frozen=True, slots=True)
class Decision:
    """Holds the verdict of a comparison and, in words, the method that decided it."""

    right: bool
    method: str


Equal = Callable[[str, str, float], bool]
"""Returns True if two expressions are equal, up to a relative tolerance (0: exactly): math-verify in a worker."""

MAX_PAIRED = 20
"""Largest number of members without an identical partner that are compared pair by pair outside of a worker."""
_NOTHING = re.compile(
    r"\\emptyset|\\\{ ?\\\}|\{\}|(?:the )?(?:empty|null) set|none|does not exist|dne|undefined|impossible"
    r"|(?:there (?:is|are|exists?) |has |it has )?no (?:such |real |valid |integer |possible |finite )*"
    r"(?:solutions?|values?|roots?|numbers?)(?: exists?)?"
)
_UNDEFINED = frozenset({"does not exist", "dne", "undefined", "impossible"})
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
    return decide(given, wanted, equal).right


def decide(given: str, wanted: str, equal: Equal) -> Decision:
    """Compares two tidied answers by the first method that applies to the truth; raises what ``equal`` raises."""
    given, wanted = reworded(given, wanted)
    if functions_differ(given, wanted):
        return Decision(False, "as functions")
    given, wanted = turned_round(strip_approximation(given)), stated_value(turned_round(wanted))
    if given == wanted:
        return Decision(True, "as text")
    if "=" in strip_name(given) and ("=" not in wanted or is_number_like(strip_name(wanted))):
        given = asked_value(given, equal)
    if (verdict := same_quantity(given, wanted)) is not None:
        return Decision(verdict, "as numbers")
    if (verdict := _same_words(given, wanted)) is not None:
        return Decision(verdict, "as words")
    if squash(given) == squash(wanted):
        return Decision(True, "as text")
    for compare, method in _METHODS:
        if (verdict := compare(given, wanted, equal)) is not None:
            return Decision(verdict, method)
    return Decision(_same_formula(given, wanted, equal), "by algebra")


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
    if is_number and answer is not None and answer.known and answer.unit != "k":  # "5k" may be 5000
        answer = replace(answer, clear=True)
    return answer is not None and names_agree(given, wanted) and same_number(answer, number)


def _same_words(given: str, wanted: str) -> bool | None:
    if _NOTHING.fullmatch(words(wanted)):
        both = {words(given) in _UNDEFINED, words(wanted) in _UNDEFINED}
        return words(given) == words(wanted) or (_NOTHING.fullmatch(words(given)) is not None and both != {True, False})
    if truth_value(wanted) is not None:
        return truth_value(given) is truth_value(wanted)
    if len(given) == len(wanted) == 1:
        return given == wanted if wanted.isalpha() and given.isalpha() else None  # a variable has its case
    if (letter := option(wanted)) is not None and option(given) is not None:
        return option(given) == letter
    if _DATE.fullmatch(wanted) or (("\\text{" in wanted or _WORD.search(wanted)) and _WORDS.fullmatch(wanted)):
        return same_phrase(given, wanted) or (letter is not None and option(given) == letter)
    return None


def unwrap_set(text: str) -> str:
    """Returns ``5`` for ``\\{5\\}``: the only element of a set is the answer."""
    return text[2:-2].strip() if text.startswith("\\{") and text.endswith("\\}") else text


# -- lists, sets and tuples -----------------------------------------------------------------------------------------


def _same_list(given: str, wanted: str, equal: Equal) -> bool | None:
    """Compares several solutions without brackets: in any order, as a set or a list."""
    target = solutions(wanted)
    if target is not None and target.several:
        return _same_unknowns(given, target, equal)
    members = parts(wanted)
    found = collection(strip_name(given))
    if len(members) == 1:
        return False if len(parts(given)) > 1 and collection(strip_name(wanted)) is None else None
    if found and found.opening != "\\{":
        return False
    if collection(members[0]) and not found:
        given = as_tuples(given)
    answers = list(found.members) if found else parts(given)
    if target is None:
        return _in_order(answers, members, equal)
    answered = None if found else solutions(given)
    if answered is not None and len(answered.names) == len(target.names) == 1 and answered.names != target.names:
        return False
    if answered is not None and not answered.several:
        answers = answered.groups[0]
    return _any_order(answers, target.groups[0], equal)


def _same_unknowns(given: str, target: Solutions, equal: Equal) -> bool:
    """Compares solutions of several unknowns, by their names or by the order of the truth."""
    answered = solutions(given)
    if answered is not None and answered.several:
        groups = answered.in_order_of(target.names)
    else:
        groups = unnamed_groups(given, len(target.names))
    if groups is None or len(groups) != len(target.groups):
        return False
    if len(groups) == 1:
        return _in_order(groups[0], target.groups[0], equal)
    tuples = [[f"({','.join(group)})" for group in side] for side in (groups, target.groups)]
    return _any_order(tuples[0], tuples[1], equal)


def _same_collection(given: str, wanted: str, equal: Equal) -> bool | None:
    target, found = collection(strip_name(wanted)), collection(strip_name(given))
    if target is None:
        return None
    if found is None and target.opening == "(":
        found = collection(as_tuples(given))
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


# -- regions and matrices -------------------------------------------------------------------------------------------


def _same_region(given: str, wanted: str, equal: Equal) -> bool | None:
    """Compares intervals, their unions and inequalities; an interval may be given as an inequality and vice versa."""
    if not (may_be_region(given) or may_be_region(wanted)):
        return None
    found, target = region(given), region(wanted)
    if found is None or target is None:
        return None
    if found.variable and target.variable and found.variable != target.variable:
        return None
    return _any_order(found.intervals, target.intervals, equal)


def _same_matrix(given: str, wanted: str, equal: Equal) -> bool | None:
    target, found = matrix(strip_name(wanted)), matrix(strip_name(given))
    if target is None:
        return None
    if found is None:  # a column may be written as a tuple
        members, cells = vector(strip_name(given)), vector(strip_name(wanted))
        return members is not None and cells is not None and _in_order(members, cells, equal)
    if target.is_determinant != found.is_determinant or len(target.rows) != len(found.rows):
        return False
    return all(_in_order(row, other, equal) for row, other in zip(found.rows, target.rows, strict=True))


def _same_in_base(given: str, wanted: str, equal: Equal) -> bool | None:
    """Compares numbers in a base, ``1011_2``: the base may be left out, the digits must be the same."""
    target = _BASE.fullmatch(re.sub(r"^\((\w+)\)(?=_)", r"\1", squash(wanted)))
    if target is None:
        return None
    given = re.sub(r"^\((\w+)\)(?=_)", r"\1", squash(given))
    found = _BASE.fullmatch(given)
    if found or target.group(1).isalpha():  # A_1 is a name
        return found is not None and found.groups() == target.groups()
    return given == target.group(1)


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
    if unit and wanted_unit and not same_unit(unit, wanted_unit):
        return False
    return names_agree(given, wanted) and (formula == target or equal(formula, target, 0.0))


def _without_unit(text: str) -> tuple[str, str]:
    """Returns ``9\\pi`` and ``cm^2`` for ``9\\pi\\text{ cm}^2``; a modulus counts as a unit."""
    if modulus := _MODULUS.search(text):
        return text[: modulus.start()], modulus.group(1)
    start = text.find("\\text{", 1)
    unit = unit_of(text[start:]) if start > 0 else None
    return (text[:start].strip(), unit.name) if unit else (text, "")


_METHODS: Sequence[tuple[Callable[[str, str, Equal], bool | None], str]] = (
    (_same_region, "as regions of the number line"),
    (_same_list, "as lists of solutions"),
    (_same_collection, "as sets, tuples or intervals"),
    (_same_matrix, "as matrices"),
    (_same_in_base, "as numbers in a base"),
)
"""Comparisons in the order in which they are tried; each returns None where the truth is not of its form."""
