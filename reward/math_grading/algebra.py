"""Decides by a computer algebra system whether two expressions are equal. Runs in worker processes only.

Constants are compared exactly or with hundreds of digits, never as doubles: ``1/50!`` is not ``1/51!``. Expressions in
symbols are equal if they have the same symbols (``R`` is not ``r``) and the same values, to hundreds of digits, at
several points.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

CACHED_EXPRESSIONS = 4096
_SEVERAL_FORMULAS = re.compile(r"\$|\\f?boxed|(?<!\\)\\[()\[\]]|[\r\n]")
_POINTS = ("7391/10000", "8090/5003", "22367/10007")
"""Values for symbols, chosen to be zeros or special points of no ordinary expression. As fractions they are exact."""
_FIRST_DIGITS, _LAST_DIGITS = 40, 700
"""Digits of the first comparison, which tells most unequal pairs apart, and of the one that decides."""
_ROUNDED_DIGITS = 6
"""Right digits of a decimal that is given for an irrational constant."""
_NO_VALUE = (TypeError, ValueError, OverflowError, ArithmeticError, NotImplementedError, AttributeError, RecursionError)
"""Errors of sympy where an expression has no value at a point."""


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def parse_expression(expression: str) -> Any:
    """Returns the sympy object that math-verify parses from an expression, None if it cannot parse it."""
    from math_verify import parse
    from sympy import Expr, I, Symbol

    if _SEVERAL_FORMULAS.search(expression):
        return None  # math-verify would read the last formula and drop the others
    # No timeouts here: math-verify's are SIGALRM handlers whose exception its own ``except`` clauses swallow, and they
    # would take the pool's timer away. The pool kills the process instead.
    found = parse(f"${expression}$", [_extraction()], fallback_mode="no_fallback", parsing_timeout=None)
    if not found or not isinstance(found[0], Expr):
        return found[0] if found else None
    # "i" stands for the imaginary unit, which math-verify parses as a symbol. The same name may come with different
    # assumptions, which would make it two symbols.
    return found[0].xreplace({sign: I if sign.name == "i" else Symbol(sign.name) for sign in found[0].free_symbols})


@lru_cache(maxsize=1)
def _extraction() -> Any:
    """Returns math-verify's settings, without units: it would drop the variable of ``\\sin m`` as a unit."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    default = LatexExtractionConfig().normalization_config
    assert isinstance(default, NormalizationConfig)
    return LatexExtractionConfig(normalization_config=replace(default, units=False))


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def equal(given: str, wanted: str, tolerance: float) -> bool:
    """Returns True if two expressions are equal: exactly, or as numbers within a relative tolerance."""
    from sympy import Expr

    answer, truth = parse_expression(given), parse_expression(wanted)
    if answer is None or truth is None:
        return False
    if tolerance:
        return _close(answer, truth, tolerance)
    if isinstance(answer, Expr) and isinstance(truth, Expr):
        if _same_value(answer, truth):
            return True
        real = _with_real_roots(answer), _with_real_roots(truth)
        return real != (answer, truth) and _same_value(*real)
    return _same_symbols(answer, truth) and _same_relation(answer, truth)


def _close(answer: Any, truth: Any, tolerance: float) -> bool:
    from sympy import Abs, Rational

    try:
        value, target = answer.evalf(_FIRST_DIGITS), truth.evalf(_FIRST_DIGITS)
        if not (value.is_real and target.is_real):
            return False
        limit = Rational(tolerance) * Abs(target) if target else Rational(1, 10**9)
        return bool(Abs(value - target) <= limit)
    except _NO_VALUE:  # not a real number
        return False


def _same_symbols(answer: Any, truth: Any) -> bool:
    names = [{symbol.name for symbol in getattr(side, "free_symbols", ())} for side in (answer, truth)]
    return names[0] == names[1]


def _same_relation(answer: Any, truth: Any) -> bool:
    """Compares equations, inequalities and what else math-verify parses."""
    from math_verify import verify
    from sympy import Eq

    if (
        isinstance(answer, Eq)
        and isinstance(truth, Eq)
        and _proportional(answer.lhs - answer.rhs, truth.lhs - truth.rhs)
    ):
        return True
    try:
        return bool(verify(truth, answer, timeout_seconds=None))
    except _NO_VALUE:
        return False


def _proportional(answer: Any, truth: Any) -> bool:
    """Returns True if two expressions differ by a constant factor, as the two sides of one equation may."""
    ratio = answer / truth if truth != 0 else None
    if ratio is None or not ratio.free_symbols:
        return ratio is not None and ratio.is_finite is True and ratio != 0
    values = [_value(ratio, point, _FIRST_DIGITS) for point in _points(sorted(ratio.free_symbols, key=str))]
    return None not in values and values[0] != 0 and all(_agree(values[0], value, _FIRST_DIGITS) for value in values)


def _same_value(answer: Any, truth: Any) -> bool:
    if answer == truth:
        return True
    answer, is_decimal = _without_floats(answer)
    truth, _ = _without_floats(truth)
    if answer.is_Rational and truth.is_Rational:
        return bool(answer == truth)
    if is_decimal and not answer.free_symbols and answer.is_Rational:
        return _rounds(answer, truth)
    if not _same_symbols(answer, truth):
        return False
    symbols = sorted(truth.free_symbols, key=str)
    compared = 0
    for point in _points(symbols):
        verdict = _agree_at(answer, truth, point)
        if verdict is False:
            return False
        compared += verdict is True
    if not symbols and compared and (exact := _exact_difference(answer, truth)) is not None:
        return bool(exact == 0)
    return compared > 0 and not any(_differ_as_reals(answer, truth, point) for point in _negative_points(symbols))


def _exact_difference(answer: Any, truth: Any) -> Any:
    """Returns the difference of two constants if it is rational, else None: 2^{3000}-1 and 2^{3000}+1 differ by 2."""
    from sympy import Float

    try:
        difference = (answer.doit() - truth.doit()).doit()
    except _NO_VALUE:
        return None
    return difference if difference.is_Rational and not difference.atoms(Float) else None


def _without_floats(expression: Any) -> tuple[Any, bool]:
    """Returns an expression with its decimals as exact fractions, and True if it had any."""
    from sympy import Float, Rational

    decimals = expression.atoms(Float)
    return expression.xreplace({decimal: Rational(str(decimal)) for decimal in decimals}), bool(decimals)


def _rounds(answer: Any, truth: Any) -> bool:
    """Returns True if a decimal is an irrational constant, rounded to at least six digits."""
    value = None if truth.free_symbols else _value(truth, {}, _FIRST_DIGITS)
    if value is None or not value.is_real or value == 0:
        return False
    return bool(abs(answer - value) <= abs(value) / 10**_ROUNDED_DIGITS)


def _points(symbols: list[Any]) -> list[dict[Any, Any]]:
    from sympy import Rational

    return [{symbol: Rational(point) + number for number, symbol in enumerate(symbols)} for point in _POINTS]


def _negative_points(symbols: list[Any]) -> list[dict[Any, Any]]:
    """Returns points at which one symbol is negative: there ``|x|`` is not ``x``."""
    first = _points(symbols)[0]
    return [{**first, symbol: -first[symbol]} for symbol in symbols]


def _value(expression: Any, point: dict[Any, Any], digits: int) -> Any:
    """Returns an expression's value as a sympy number, None if it has none."""
    try:
        value = expression.evalf(digits, subs=point, maxn=4 * digits)
    except _NO_VALUE:
        return None
    return value if value.is_number and value.is_finite is not False and not value.free_symbols else None


def _agree_at(answer: Any, truth: Any, point: dict[Any, Any]) -> bool | None:
    """Returns True if two expressions have the same value at a point; None if one has no value there."""
    for digits in (_FIRST_DIGITS, _LAST_DIGITS):
        value, target = _value(answer, point, digits), _value(truth, point, digits)
        if value is None or target is None:
            return None
        if not _agree(value, target, digits):
            return False
    return True


def _with_real_roots(expression: Any) -> Any:
    """Returns an expression whose roots of odd degree are real at negative numbers, as at school; sympy's are not."""
    from sympy import Abs, Pow, sign

    def is_odd_root(part: Any) -> bool:
        return isinstance(part, Pow) and part.exp.is_Rational and part.exp.q % 2 == 1 and part.exp.q > 1

    def real_root(part: Any) -> Any:
        return sign(part.base) ** part.exp.p * Abs(part.base) ** part.exp

    return expression.replace(is_odd_root, real_root)


def _agree(value: Any, target: Any, digits: int) -> bool:
    """Returns True if two values differ by rounding only."""
    from sympy import Abs, Float

    if _is_zero(value) or _is_zero(target):
        return _is_zero(value) and _is_zero(target)
    try:
        difference, size = Abs(value - target).evalf(15), max(Abs(value).evalf(15), Abs(target).evalf(15))
        return bool(difference <= size * Float(10) ** (10 - digits))
    except _NO_VALUE:
        return False


def _is_zero(value: Any) -> bool:
    """Returns True for 0, and for a sum of large terms of which evalf() finds no digit that is not rounding."""
    from sympy import Float

    if value == 0:
        return True
    numbers = value.atoms(Float)
    return bool(numbers) and all(number._prec < 10 for number in numbers)


def _differ_as_reals(answer: Any, truth: Any, point: dict[Any, Any]) -> bool:
    """Returns True if both values at a point are real and differ; roots of negative numbers prove nothing."""
    value, target = _value(answer, point, _FIRST_DIGITS), _value(truth, point, _FIRST_DIGITS)
    if value is None or target is None or not (value.is_real and target.is_real):
        return False
    return not _agree(value, target, _FIRST_DIGITS)
