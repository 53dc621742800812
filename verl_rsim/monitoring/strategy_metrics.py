"""Computes metrics of the strategies in a batch: when they are used, with what success, and if steps follow them.

Pure Python. docs/metrics.md explains every name. A metric that the batch does not define, such as the win rate of a
strategy that no episode used, is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from verl_rsim.core.strategies import STRATEGIES

NAMES = tuple(strategy.name for strategy in STRATEGIES)


def strategy_metrics(summaries: Sequence[Mapping[str, Any]], accuracies: Sequence[float]) -> dict[str, float]:
    """Returns metrics of the planner's choices and of the steps written under them.

    Args:
        summaries: One per episode, as :func:`verl_rsim.training.rollout_rows.episode_summary` makes them; at least one.
        accuracies: Accuracy of each episode.
    """
    paths = [summary["strategies"] for summary in summaries]
    steps: list[tuple[int, Sequence[int]]] = []
    for summary in summaries:
        steps += zip(summary["strategies"], summary["step_keywords"], strict=True)
    return _frequencies(paths) | _transitions(paths) | _effects(paths, accuracies) | _obedience(steps)


def _frequencies(paths: Sequence[Sequence[int]]) -> dict[str, float]:
    """Returns the share of each strategy, among all turns and at each turn, and the entropy of the shares."""
    choices: list[int] = []
    for path in paths:
        choices += path
    shares = _shares(choices)
    metrics = {f"strategy/{name}": share for name, share in zip(NAMES, shares, strict=True)}
    metrics["strategy/entropy"] = sum(share * math.log(1 / share) for share in shares if share)
    metrics["strategy/per_episode"] = fmean(len(set(path)) for path in paths)
    for turn in range(max(map(len, paths))):
        shares = _shares([path[turn] for path in paths if len(path) > turn])
        metrics |= {f"strategy/{name}/turn/{turn + 1}": share for name, share in zip(NAMES, shares, strict=True)}
    return metrics


def _shares(choices: Sequence[int]) -> list[float]:
    counts, total = Counter(choices), max(1, len(choices))
    return [counts[index] / total for index in range(len(NAMES))]


def _transitions(paths: Iterable[Sequence[int]]) -> dict[str, float]:
    """Counts pairs of consecutive strategies."""
    counts: Counter[tuple[int, int]] = Counter()
    for path in paths:
        counts.update(pairwise(path))
    # Pairs that did not occur are left out: most of the 81 would be zero and bury the others in the loggers.
    return {f"transition/{NAMES[a]}/{NAMES[b]}": float(count) for (a, b), count in sorted(counts.items())}


def _effects(paths: Sequence[Sequence[int]], accuracies: Sequence[float]) -> dict[str, float]:
    """Returns win rates and lifts of the strategies, in any turn and at each turn.

    Those at a turn compare only the episodes that reached it; shorter ones made no choice there.
    """
    episodes = list(zip(paths, accuracies, strict=True))
    metrics = _effect("", episodes)
    for turn in range(max(map(len, paths))):
        at_turn = [(path[turn : turn + 1], accuracy) for path, accuracy in episodes if len(path) > turn]
        metrics |= _effect(f"/turn/{turn + 1}", at_turn)
    return metrics


def _effect(suffix: str, episodes: Sequence[tuple[Sequence[int], float]]) -> dict[str, float]:
    """Returns each strategy's win rate (accuracy with it) and lift (that minus the accuracy without it).

    Args:
        suffix: Part of the metrics' names after the strategy.
        episodes: Strategies and accuracy of each episode.
    """
    metrics: dict[str, float] = {}
    for index, name in enumerate(NAMES):
        used = [accuracy for path, accuracy in episodes if index in path]
        unused = [accuracy for path, accuracy in episodes if index not in path]
        if used:
            metrics[f"strategy/{name}{suffix}/win_rate"] = fmean(used)
        if used and unused:
            metrics[f"strategy/{name}{suffix}/lift"] = fmean(used) - fmean(unused)
    return metrics


def _obedience(steps: Sequence[tuple[int, Sequence[int]]]) -> dict[str, float]:
    """Returns how much more often a strategy's key words occur in steps written under it than in other steps.

    Args:
        steps: For each step the strategy it was written under, and the strategies whose key words its text has.
    """
    metrics: dict[str, float] = {}
    gains: list[float] = []
    for index, name in enumerate(NAMES):
        under = [index in keywords for strategy, keywords in steps if strategy == index]
        elsewhere = [index in keywords for strategy, keywords in steps if strategy != index]
        if under:
            metrics[f"strategy/{name}/keywords"] = fmean(under)
        if under and elsewhere:
            gain = fmean(under) - fmean(elsewhere)
            metrics[f"strategy/{name}/obedience"] = gain
            gains += [gain] * len(under)  # the overall value is a mean over steps, so frequent strategies weigh more
    if gains:
        metrics["strategy/obedience"] = fmean(gains)
    return metrics
