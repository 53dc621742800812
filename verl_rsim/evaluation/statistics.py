"""Estimates accuracies and differences with their uncertainty.

The question is the unit: the samples of one question are averaged, never pooled. Every random procedure takes a seed,
and the same seed gives the same numbers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
FLIPS = 20_000
EXACT_FLIPS = 16
"""Largest number of differing questions for which all sign assignments are enumerated."""
_BATCH = 1 << 22
"""Most random numbers held in memory at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Holds a mean over questions and its 95 % confidence interval; nan where it is not defined."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Holds the difference in accuracy between two conditions on the same questions.

    Attributes:
        estimate: mean difference and its interval.
        p: two-sided p-value of the hypothesis that there is no difference.
        test: "mcnemar" (exact; one sample per question), "sign_flip" (exact) or "sign_flip_sampled".
        questions: number of questions that both conditions answered.
        wins, losses: number of questions on which the first condition is better, and worse.
    """

    estimate: Estimate
    p: float
    test: str
    questions: int
    wins: int
    losses: int


def bootstrap(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Returns the mean and its percentile bootstrap interval over questions.

    Args:
        values: one value per question, ``(questions,)``; the interval of a single value is nan.
        seed: seed of the resampling.
        resamples: number of bootstrap samples.
    """
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(data.mean())
    if data.size == 1:
        return Estimate(mean, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    rows = max(1, _BATCH // data.size)
    means = [
        data[rng.integers(0, data.size, (min(rows, resamples - done), data.size))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Estimate(mean, float(low), float(high))


def mcnemar(wins: int, losses: int) -> float:
    """Returns the exact two-sided p-value of McNemar's test, a binomial test of wins against losses."""
    tosses = wins + losses
    tail = sum(math.comb(tosses, heads) for heads in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**tosses)


def sign_flip(differences: Sequence[float], seed: int, flips: int = FLIPS) -> tuple[float, bool]:
    """Returns the two-sided p-value of the paired permutation (sign-flip) test on the mean difference.

    Args:
        differences: one difference per question, ``(questions,)``.
        seed: seed of the random sign assignments.
        flips: number of random sign assignments.

    Returns:
        The p-value, and True if all sign assignments were enumerated. Otherwise the p-value is
        ``(hits + 1) / (flips + 1)`` over random ones.
    """
    # Zeros do not depend on their sign; leaving them out lets more questions be enumerated.
    data = np.asarray([value for value in differences if value != 0], dtype=np.float64)
    # The tolerance counts assignments whose sum is equal up to rounding as at least as extreme as the observed one.
    observed = abs(data.sum()) * (1 - 1e-9)
    if data.size <= EXACT_FLIPS:
        bits = np.arange(1 << data.size)[:, None] >> np.arange(data.size) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ data) >= observed)), True
    rng = np.random.default_rng(seed)
    rows, hits = max(1, _BATCH // data.size), 0
    for done in range(0, flips, rows):
        signs = rng.integers(0, 2, (min(rows, flips - done), data.size)) * 2 - 1
        hits += int(np.sum(np.abs(signs @ data) >= observed))
    return (hits + 1) / (flips + 1), False


def paired(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]], seed: int) -> Difference:
    """Returns the paired difference ``first`` minus ``second`` on their common questions.

    Args:
        first, second: scores (0 or 1) of each question's samples, by question.
        seed: seed of bootstrap and sign flips.
    """
    common = [question for question in first if question in second]
    differences = [float(np.mean(first[question]) - np.mean(second[question])) for question in common]
    wins, losses = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    estimate = bootstrap(differences, seed)
    if all(len(first[question]) == len(second[question]) == 1 for question in common):
        p, test = mcnemar(wins, losses), "mcnemar"
    else:
        p, exact = sign_flip(differences, seed)
        test = "sign_flip" if exact else "sign_flip_sampled"
    return Difference(estimate, p if common else math.nan, test, len(common), wins, losses)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for the number of comparisons (Holm, 1979), in the given order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        # A corrected p-value must not be below that of a smaller p-value.
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def majority(votes: Sequence[str | None], correct: Sequence[float]) -> float:
    """Returns 1.0 if the most frequent answer of a question is right, else 0.0 (maj@k).

    If answers are tied, the share of right ones among them is returned; 0.0 if no sample has an answer.

    Args:
        votes: answer of each sample in its canonical spelling, None if it states none.
        correct: score of each sample.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return 0.0
    scores = defaultdict(list)
    for vote, value in zip(votes, correct, strict=True):
        scores[vote].append(value)
    most = max(counts.values())
    return float(np.mean([np.mean(scores[vote]) for vote, count in counts.items() if count == most]))
