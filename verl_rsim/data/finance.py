"""Generates synthetic questions about a company's figures, with numeric answers as in FinQA.

They replace FinQA where there is no network. Each shows two years of an income statement and asks one of six questions
that take a step or two. They test that financial answers are learned and scored, not knowledge of finance.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Figures = dict[str, tuple[int, int]]
"""Figures of the two years, in thousands of dollars, by line of the statement."""


def _change(line: str) -> Callable[[Figures, random.Random], tuple[str, float]]:
    def ask(figures: Figures, _: random.Random) -> tuple[str, float]:
        before, after = figures[line]
        return f"By how many percent did {line} change from the first year to the second?", 100 * (after / before - 1)

    return ask


def _margin(figures: Figures, rng: random.Random) -> tuple[str, float]:
    year = rng.randrange(2)
    result = 100 * (1 - figures["costs"][year] / figures["revenue"][year])
    return f"What was the operating margin in the {_ORDINALS[year]} year, in percent of revenue?", result


def _average(figures: Figures, _: random.Random) -> tuple[str, float]:
    return "What was the average revenue of the two years, in thousands of dollars?", sum(figures["revenue"]) / 2


def _share(figures: Figures, rng: random.Random) -> tuple[str, float]:
    year = rng.randrange(2)
    result = 100 * figures["interest"][year] / figures["costs"][year]
    return f"What percent of the costs of the {_ORDINALS[year]} year was interest?", result


def _interest(figures: Figures, rng: random.Random) -> tuple[str, float]:
    rate, years = rng.randint(2, 9), rng.randint(2, 5)
    text = (
        f"The revenue of the second year is deposited at {rate}% simple interest a year. How much interest, in "
        f"thousands of dollars, has it earned after {years} years?"
    )
    return text, figures["revenue"][1] * rate * years / 100


_ORDINALS = ("first", "second")
_QUESTIONS = (_change("revenue"), _change("costs"), _margin, _average, _share, _interest)


def draw_question(rng: random.Random) -> tuple[str, str]:
    """Returns a random question and its answer to two decimals: a percentage with "%", or thousands of dollars."""
    revenue = tuple(rng.randint(20, 99) * 10 for _ in range(2))
    costs = tuple(rng.randint(revenue[year] // 2, revenue[year] - 5) for year in range(2))
    interest = tuple(rng.randint(1, costs[year] // 5) for year in range(2))
    figures: Figures = {"revenue": revenue, "costs": costs, "interest": interest}  # type: ignore[dict-item]
    text, value = rng.choice(_QUESTIONS)(figures, rng)
    table = "\n".join(f"{line} | {first} | {second}" for line, (first, second) in figures.items())
    unit = "%" if "percent" in text else ""
    return f"thousands of dollars | first year | second year\n{table}\n{text}", f"{value:.2f}{unit}"
