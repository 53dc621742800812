"""Which strategies a batch used, when, to what end, and whether the reasoner followed them. Pure Python.

The names are explained in docs/metrics.md. A value that the batch does not define (the win rate of a strategy nobody
used) is left out, never made up.
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
    """Metrics of the planner's choices and of the steps written under them.

    Args:
        summaries: one per episode, as :func:`verl_rsim.training.agent_loop.summary` makes them; at least one.
        accuracies: of the same episodes.
    """
    paths = [summary["strategies"] for summary in summaries]
    steps = [
        step for summary in summaries for step in zip(summary["strategies"], summary["step_keywords"], strict=True)
    ]
    return _frequencies(paths) | _transitions(paths) | _effects(paths, accuracies) | _obedience(steps)


def _frequencies(paths: Sequence[Sequence[int]]) -> dict[str, float]:
    shares = _shares([choice for path in paths for choice in path])
    found = {f"strategy/{name}": share for name, share in zip(NAMES, shares, strict=True)}
    found["strategy/entropy"] = sum(share * math.log(1 / share) for share in shares if share)
    found["strategy/per_episode"] = fmean(len(set(path)) for path in paths)
    for turn in range(max(map(len, paths))):
        shares = _shares([path[turn] for path in paths if len(path) > turn])
        found |= {f"strategy/{name}/turn/{turn + 1}": share for name, share in zip(NAMES, shares, strict=True)}
    return found


def _shares(choices: Sequence[int]) -> list[float]:
    counts, total = Counter(choices), max(1, len(choices))
    return [counts[index] / total for index in range(len(NAMES))]


def _transitions(paths: Iterable[Sequence[int]]) -> dict[str, float]:
    """Counts of the pairs that occurred: 81 names, mostly zero, would bury the rest."""
    counts = Counter(pair for path in paths for pair in pairwise(path))
    return {f"transition/{NAMES[a]}/{NAMES[b]}": float(count) for (a, b), count in sorted(counts.items())}


def _effects(paths: Sequence[Sequence[int]], accuracies: Sequence[float]) -> dict[str, float]:
    """Accuracy with each strategy, anywhere and at each turn; at a turn, of the episodes that reached it."""
    played = list(zip(paths, accuracies, strict=True))
    found = _effect("", played)
    for turn in range(max(map(len, paths))):
        found |= _effect(
            f"/turn/{turn + 1}", [(path[turn : turn + 1], acc) for path, acc in played if len(path) > turn]
        )
    return found


def _effect(place: str, played: Sequence[tuple[Sequence[int], float]]) -> dict[str, float]:
    """Args: played: the strategies that count, and the accuracy, of each episode."""
    found: dict[str, float] = {}
    for index, name in enumerate(NAMES):
        used = [accuracy for path, accuracy in played if index in path]
        unused = [accuracy for path, accuracy in played if index not in path]
        if used:
            found[f"strategy/{name}{place}/win_rate"] = fmean(used)
        if used and unused:
            found[f"strategy/{name}{place}/lift"] = fmean(used) - fmean(unused)
    return found


def _obedience(steps: Sequence[tuple[int, Sequence[int]]]) -> dict[str, float]:
    """Args: steps: of each step, the strategy it was written under and those whose key words stand in its text."""
    found: dict[str, float] = {}
    gains: list[float] = []
    for index, name in enumerate(NAMES):
        under = [index in shown for strategy, shown in steps if strategy == index]
        elsewhere = [index in shown for strategy, shown in steps if strategy != index]
        if under:
            found[f"strategy/{name}/keywords"] = fmean(under)
        if under and elsewhere:
            gain = fmean(under) - fmean(elsewhere)
            found[f"strategy/{name}/obedience"] = gain
            gains += [gain] * len(under)
    return found | ({"strategy/obedience": fmean(gains)} if gains else {})
