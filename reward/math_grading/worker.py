"""Runs in a worker process of the math scorer and compares answers with ground truths by math-verify and sympy."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from itertools import pairwise
from typing import Any

from verl_rsim.reward.math_grading.compare import NEAR_ZERO, AnswerType, judge
from verl_rsim.reward.math_grading.worker_pool import serve_tasks

CACHED_EXPRESSIONS = 4096
_WARM_UP = r"""
\frac{\sqrt{2}}{2}; \frac{1}{\sqrt2}; \sqrt{12}; 2\cdot\sqrt{3}; 3\pm\sqrt{2}; \sqrt[3]{5}; 2^{1/2}; 3\times 10^{5}
x^2+2x+1; (x+1)^2; (x-2)(x+3); a^2-b^2; x^3-3x^{2}y+y^{-1}; a(b+c); 6x^5; -\frac{x-1}{x+1}; (x+1)/(x-1); 2x/3
y=2x+\pi; y-2x=1; x^2+y^2=1; f(x)=x; x_1+x_2; k\neq 3; 3+4i; 2\pi r; \frac{1}{2}\pi; 1.57; -120; 30\%; 10!
\binom{10}{3}; \sin 2x; 2\sin x\cos x; \tan^{-1}(x); \cos(\pi/3); \log_2 3; \frac{\ln 3}{\ln 2}; \ln(x+1); \log 2
e^{-2t}; |x-1|; 2^{n+1}; x \leq 3; x<-1; (1,2); [1,\infty); \{1,2\}; \begin{pmatrix} x \\ 1 \end{pmatrix}
\mathbb{R}; \emptyset; \vec{a}; \overline{AB}
"""
"""Typical expressions: antlr's automata and sympy's caches are filled as they meet grammar, and forks inherit both."""
_SEVERAL_FORMULAS = re.compile(r"\$|\\f?boxed|(?<!\\)\\[()\[\]]|[\r\n]")
_POINTS = ("0.7391", "1.6180", "2.2367")
"""Values for symbols, chosen to be zeros or special points of no ordinary expression."""


def let_the_parser_read_percent_signs() -> None:
    """Patches latex2sympy2_extended 1.11.0 so that it can parse percent signs.

    Its grammar for antlr 4.9.3 lacks a token that its code asks for, and every ``\\%`` raises AttributeError. Remove
    this when ``parse("$30\\%$")`` works on antlr 4.9.3, which hydra 1.3 requires.
    """
    from latex2sympy2_extended.gen.antlr4_9_3.PSParser import PSParser

    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda self: None


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def parse_expression(expression: str) -> Any:
    """Returns the sympy object that math-verify parses from an expression, None if it cannot parse it."""
    from math_verify import LatexExtractionConfig, parse
    from sympy import Expr, I

    if _SEVERAL_FORMULAS.search(expression):
        return None  # math-verify would read the last formula and drop the others
    # No timeouts here: math-verify's are SIGALRM handlers whose exception its own ``except`` clauses swallow, and they
    # would take the pool's timer away. The pool kills the process instead.
    found = parse(f"${expression}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if not found or not isinstance(found[0], Expr):
        return found[0] if found else None
    # "i" stands for the imaginary unit, which math-verify parses as a symbol.
    return found[0].xreplace({symbol: I for symbol in found[0].free_symbols if symbol.name == "i"})


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def equal(given: str, wanted: str, tolerance: float) -> bool:
    """Returns True if two expressions are equal: symbolically, or as numbers within a relative tolerance."""
    from math_verify import verify

    answer, truth = parse_expression(given), parse_expression(wanted)
    if answer is None or truth is None:
        return False
    if not tolerance:
        return not differ_at_a_point(answer, truth) and bool(verify(truth, answer, timeout_seconds=None))
    try:
        value, target = float(answer.evalf()), float(truth.evalf())
    except (TypeError, AttributeError):  # not a real number
        return False
    return abs(value - target) <= (tolerance * abs(target) if target else float(NEAR_ZERO))


def differ_at_a_point(answer: Any, truth: Any) -> bool:
    """Returns True if two expressions in the same symbols have different values at one of a few points.

    This is cheap. math-verify would simplify their difference before it gives up, which takes tens of milliseconds or
    does not end.
    """
    from sympy import Expr, Float

    if not (isinstance(answer, Expr) and isinstance(truth, Expr)) or answer.free_symbols != truth.free_symbols:
        return False
    symbols = sorted(answer.free_symbols, key=str)
    for point in _POINTS:
        at = {symbol: Float(point) + number for number, symbol in enumerate(symbols)}
        try:
            value, target = (complex(expression.evalf(20, subs=at)) for expression in (answer, truth))
        except (TypeError, ValueError, OverflowError, ArithmeticError, NotImplementedError):  # no value here
            return False
        # Relative, since math-verify rounds to six decimals and takes all constants below 5e-7 as 0. The absolute part
        # forgives rounding where an expression with symbols is 0 at this point.
        if abs(value - target) > 1e-5 * max(abs(value), abs(target)) + (1e-12 if symbols else 1e-60):
            return True
    return False


def warm_up() -> None:
    """Parses typical expressions and compares each with the next, to fill caches before the first fork."""
    expressions = [expression.strip() for expression in re.split(r"[;\n]", _WARM_UP.strip())]
    for given, wanted in pairwise(expressions):
        equal(given, wanted, 0.0)
    equal("x^2+2x+1", "(x+1)^2", 0.0)
    equal(r"2\sin x\cos x", r"\sin 2x", 0.0)


def grade(answer: str, truth: str, kind: str, tolerance: float) -> bool:
    """Does one task of a worker: returns True if the answer is right."""
    return judge(answer, truth, AnswerType(kind), tolerance, equal)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    let_the_parser_read_percent_signs()
    warm_up()
    serve_tasks(grade)
