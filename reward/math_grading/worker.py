"""Runs in a worker process of the math scorer and compares answers with ground truths by math-verify and sympy."""

from __future__ import annotations

import logging
import re
from itertools import pairwise

from verl_rsim.reward.math_grading.algebra import equal
from verl_rsim.reward.math_grading.canonical import canonical_answer
from verl_rsim.reward.math_grading.compare import AnswerType, fallback, judge
from verl_rsim.reward.math_grading.extract import extract
from verl_rsim.reward.math_grading.worker_pool import serve_tasks

MAX_ANSWER_CHARS = 300
"""Longest answer that is compared, unless the truth is about as long."""
MAX_SHOWN_CHARS = 10_000
"""Longest answer that is sent back."""
_WARM_UP = r"""
\frac{\sqrt{2}}{2}; \frac{1}{\sqrt2}; \sqrt{12}; 2\cdot\sqrt{3}; 3\pm\sqrt{2}; \sqrt[3]{5}; 2^{1/2}; 3\times 10^{5}
x^2+2x+1; (x+1)^2; (x-2)(x+3); a^2-b^2; x^3-3x^{2}y+y^{-1}; a(b+c); 6x^5; -\frac{x-1}{x+1}; (x+1)/(x-1); 2x/3
y=2x+\pi; y-2x=1; x^2+y^2=1; f(x)=x; x_1+x_2; k\neq 3; 3+4i; 2\pi r; \frac{1}{2}\pi; 1.57; -120; 30\%; 10!
\binom{10}{3}; \sin 2x; 2\sin x\cos x; \tan^{-1}(x); \cos(\pi/3); \log_2 3; \frac{\ln 3}{\ln 2}; \ln(x+1); \log 2
e^{-2t}; |x-1|; 2^{n+1}; x \leq 3; x<-1; (1,2); [1,\infty); \{1,2\}; \begin{pmatrix} x \\ 1 \end{pmatrix}
\mathbb{R}; \emptyset; \vec{a}; \overline{AB}
"""
"""Typical expressions: antlr's automata and sympy's caches are filled as they meet grammar, and forks inherit both."""


def let_the_parser_read_percent_signs() -> None:
    """Patches latex2sympy2_extended 1.11.0 so that it can parse percent signs.

    Its grammar for antlr 4.9.3 lacks a token that its code asks for, and every ``\\%`` raises AttributeError. Remove
    this when ``parse("$30\\%$")`` works on antlr 4.9.3, which hydra 1.3 requires.
    """
    from latex2sympy2_extended.gen.antlr4_9_3.PSParser import PSParser

    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda self: None


def let_the_parser_keep_the_case_of_symbols() -> None:
    """Patches latex2sympy2_extended 1.11.0, which reads ``R`` as ``r``, so that ``R-r`` is not ``r-R``.

    math-verify passes no setting on to it, so that only the default value is left to change. Remove this when
    math-verify can be asked to set ``lowercase_symbols=False``.
    """
    from latex2sympy2_extended import latex2sympy2

    *others, _ = latex2sympy2.latex2sympy.__defaults__
    latex2sympy2.latex2sympy.__defaults__ = (*others, latex2sympy2.ConversionConfig(lowercase_symbols=False))


def warm_up() -> None:
    """Parses typical expressions and compares each with the next, to fill caches before the first fork."""
    expressions = [expression.strip() for expression in re.split(r"[;\n]", _WARM_UP.strip())]
    for given, wanted in pairwise(expressions):
        equal(given, wanted, 0.0)
    equal("x^2+2x+1", "(x+1)^2", 0.0)
    equal(r"2\sin x\cos x", r"\sin 2x", 0.0)


def grade(text: str, truth: str, kind: str, tolerance: float) -> dict[str, str | None]:
    """Does one task of a worker: extracts the answer of a text, compares it, and returns how.

    Extraction is done here too, so that no text can hold up the process that asks.

    Returns:
        The fields of :class:`.scorer.Explanation` but the type.
    """
    answer_type = AnswerType(kind)
    found = extract(text, fallback(answer_type))
    if found.answer is None:
        return {"reason": "ambiguous" if found.ambiguous else "no_answer", "place": found.place}
    # Cut for the message only; an answer of this length is never compared.
    shown = found.answer[:MAX_SHOWN_CHARS]
    graded = {"answer": shown, "place": found.place, "vote": canonical_answer(shown, answer_type)}
    # Refused rather than cut: the beginning of an answer may be right where the whole is wrong.
    if len(found.answer) > max(MAX_ANSWER_CHARS, 2 * len(truth)):
        return {**graded, "reason": "too_long"}
    decision = judge(found.answer, truth, answer_type, tolerance, equal)
    return {**graded, "reason": "right" if decision.right else "wrong", "method": decision.method}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    let_the_parser_read_percent_signs()
    let_the_parser_keep_the_case_of_symbols()
    warm_up()
    serve_tasks(grade)
