"""Estimates with their uncertainty. The question is the unit: samples of one question are averaged, never pooled.

Every random procedure takes a seed and gives the same numbers again.
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
"""Up to so many questions that differ, every assignment of signs is tried."""
_BATCH = 1 << 22


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions with its 95 % confidence interval; nan where it is not defined."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One condition minus another, on the same questions.

    Attributes:
        estimate: of the difference in accuracy.
        p: of the hypothesis that there is none, two-sided.
        test: "mcnemar" (exact; one sample a question), "sign_flip" (exact) or "sign_flip_sampled".
        questions: that both answered.
        wins, losses: questions on which the first is better, and worse.
    """

    estimate: Estimate
    p: float
    test: str
    questions: int
    wins: int
    losses: int


def bootstrap(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Mean and percentile bootstrap interval over questions.

    Args:
        values: ``(questions,)``; of a single one the interval is nan.
    """
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(data.mean())
    if data.size == 1:
        return Estimate(mean, math.nan, math.nan)
    source = np.random.default_rng(seed)
    rows = max(1, _BATCH // data.size)
    means = [
        data[source.integers(0, data.size, (min(rows, resamples - done), data.size))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Estimate(mean, float(low), float(high))


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided p of McNemar's test: twice that of ``min(wins, losses)`` or fewer heads in fair tosses."""
    tosses = wins + losses
    tail = sum(math.comb(tosses, heads) for heads in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**tosses)


def sign_flip(differences: Sequence[float], seed: int, flips: int = FLIPS) -> tuple[float, bool]:
    """Two-sided p of the paired permutation test on the mean difference.

    Args:
        differences: ``(questions,)``.

    Returns:
        p, and whether every assignment of signs was tried; otherwise ``(hits + 1) / (flips + 1)`` of random ones.
    """
    data = np.asarray([value for value in differences if value != 0], dtype=np.float64)
    observed = abs(data.sum()) * (1 - 1e-9)
    if data.size <= EXACT_FLIPS:
        bits = np.arange(1 << data.size)[:, None] >> np.arange(data.size) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ data) >= observed)), True
    source = np.random.default_rng(seed)
    rows, hits = max(1, _BATCH // data.size), 0
    for done in range(0, flips, rows):
        signs = source.integers(0, 2, (min(rows, flips - done), data.size)) * 2 - 1
        hits += int(np.sum(np.abs(signs @ data) >= observed))
    return (hits + 1) / (flips + 1), False


def paired(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]], seed: int) -> Difference:
    """``first`` minus ``second`` on the questions that both hold.

    Args:
        first, second: question to its samples' scores (0 or 1).
    """
    common = [question for question in first if question in second]
    differences = [float(np.mean(first[question]) - np.mean(second[question])) for question in common]
    wins, losses = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    estimate = bootstrap(differences, seed)
    if all(len(scores[question]) == 1 for scores in (first, second) for question in common):
        p, test = mcnemar(wins, losses), "mcnemar"
    else:
        p, exact = sign_flip(differences, seed)
        test = "sign_flip" if exact else "sign_flip_sampled"
    return Difference(estimate, p if common else math.nan, test, len(common), wins, losses)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for the number of comparisons (Holm, 1979), in the order given."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def majority(votes: Sequence[str | None], correct: Sequence[float]) -> float:
    """Whether the answer with the most votes is right; of tied answers, the share that is. Silence is no vote.

    Args:
        votes, correct: of the samples of one question.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return 0.0
    scores = defaultdict(list)
    for vote, value in zip(votes, correct, strict=True):
        scores[vote].append(value)
    most = max(counts.values())
    return float(np.mean([np.mean(scores[vote]) for vote, count in counts.items() if count == most]))
