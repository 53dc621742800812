"""Synthetic questions about a made-up company's figures, with numeric answers in the manner of FinQA.

They stand in for FinQA where there is no network: two years of an income statement, and one of six questions that take
a step or two. They show that financial answers are learned and scored, and nothing about finance.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Figures = dict[str, tuple[int, int]]
"""A line of the statement to its two years, in thousands of dollars."""


def _change(line: str) -> Callable[[Figures, random.Random], tuple[str, float]]:
    def ask(figures: Figures, _: random.Random) -> tuple[str, float]:
        before, after = figures[line]
        return f"By how many percent did {line} change from the first year to the second?", 100 * (after / before - 1)

    return ask


def _margin(figures: Figures, source: random.Random) -> tuple[str, float]:
    year = source.randrange(2)
    result = 100 * (1 - figures["costs"][year] / figures["revenue"][year])
    return f"What was the operating margin in the {_ORDINALS[year]} year, in percent of revenue?", result


def _average(figures: Figures, _: random.Random) -> tuple[str, float]:
    return "What was the average revenue of the two years, in thousands of dollars?", sum(figures["revenue"]) / 2


def _share(figures: Figures, source: random.Random) -> tuple[str, float]:
    year = source.randrange(2)
    result = 100 * figures["interest"][year] / figures["costs"][year]
    return f"What percent of the costs of the {_ORDINALS[year]} year was interest?", result


def _interest(figures: Figures, source: random.Random) -> tuple[str, float]:
    rate, years = source.randint(2, 9), source.randint(2, 5)
    asked = f"The revenue of the second year is deposited at {rate}% simple interest a year. How much interest, in "
    return f"{asked}thousands of dollars, has it earned after {years} years?", figures["revenue"][
        1
    ] * rate * years / 100


_ORDINALS = ("first", "second")
_QUESTIONS = (_change("revenue"), _change("costs"), _margin, _average, _share, _interest)


def draw(source: random.Random) -> tuple[str, str]:
    """A question and its answer, a percentage (with its sign) or thousands of dollars, to two decimals."""
    revenue = tuple(source.randint(20, 99) * 10 for _ in range(2))
    costs = tuple(source.randint(revenue[year] // 2, revenue[year] - 5) for year in range(2))
    interest = tuple(source.randint(1, costs[year] // 5) for year in range(2))
    figures: Figures = {"revenue": revenue, "costs": costs, "interest": interest}  # type: ignore[dict-item]
    asked, value = source.choice(_QUESTIONS)(figures, source)
    table = "\n".join(f"{line} | {first} | {second}" for line, (first, second) in figures.items())
    unit = "%" if "percent" in asked else ""
    return f"thousands of dollars | first year | second year\n{table}\n{asked}", f"{value:.2f}{unit}"
