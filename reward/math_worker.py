"""The module a worker of the math scorer runs: math-verify behind :func:`verl_rsim.reward.answers.judge`."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from verl_rsim.reward.answers import AnswerType, judge
from verl_rsim.reward.worker_pool import work

CACHED_EXPRESSIONS = 4096
_WARM_UP = (
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt2}"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"y=2x+\pi", r"y-2x=\pi"),
    (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"),
    (r"3+4i", r"4i+3\sin(0)"),
    (r"30\%", "0.31"),
    (r"e^{-2t}", r"\frac{1}{e^{2t}}"),
)


def let_the_parser_read_percent_signs() -> None:
    """Give latex2sympy2_extended 1.11.0 the token that its antlr 4.9.3 grammar lacks and its code asks for.

    Without it every ``\\%`` raises AttributeError. To be removed when ``parse("$30\\%$")`` works on antlr 4.9.3, which
    hydra 1.3 requires.
    """
    from latex2sympy2_extended.gen.antlr4_9_3.PSParser import PSParser

    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda self: None


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def parsed(expression: str) -> Any:
    """math-verify's reading of an expression, None if it has none."""
    from math_verify import LatexExtractionConfig, parse

    # No time-outs: math-verify's are signals that its own code swallows; the worker is killed instead.
    found = parse(f"${expression}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


@lru_cache(maxsize=CACHED_EXPRESSIONS)
def equal(given: str, wanted: str, tolerance: float) -> bool:
    """Whether two expressions are equal: symbolically, or as numbers within a relative tolerance."""
    from math_verify import verify

    answer, truth = parsed(given), parsed(wanted)
    if answer is None or truth is None:
        return False
    if not tolerance:
        return bool(verify(truth, answer, timeout_seconds=None))
    try:
        value, target = float(answer.evalf()), float(truth.evalf())
    except (TypeError, AttributeError):  # not a real number
        return False
    return abs(value - target) <= tolerance * abs(target)


def grade(answer: str, truth: str, kind: str, tolerance: float) -> bool:
    """One task of a worker."""
    return judge(answer, truth, AnswerType(kind), tolerance, equal)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    let_the_parser_read_percent_signs()
    for pair in _WARM_UP:
        equal(*pair, 0.0)
    work(grade)
