"""The statistics of the report: proportions with their uncertainty, and counts over episodes. Pure Python."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from verl_rsim.core.episode_record import EpisodeRecord
from verl_rsim.core.strategies import STRATEGIES, count_by_keyword

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: two-sided 95 % intervals."""

_INDEX = {strategy.name: index for index, strategy in enumerate(STRATEGIES)}


@dataclass(frozen=True, slots=True)
class ShareEstimate:
    """A value with its 95 % interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval.
        count: episodes it rests on.
    """

    value: float
    low: float
    high: float
    count: int


def wilson(successes: float, total: int, z: float = Z95) -> ShareEstimate | None:
    """A proportion with Wilson's score interval (Wilson 1927); None of nothing.

    Args:
        successes: in [0, total]; need not be whole where an answer can be partly right, the interval is then too wide.
        total: trials.
        z: quantile of the normal distribution.
    """
    if not total:
        return None
    share = successes / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return ShareEstimate(share, max(0.0, centre - half), min(1.0, centre + half), total)


def difference(first: ShareEstimate | None, second: ShareEstimate | None) -> ShareEstimate | None:
    """Difference of two independent proportions, with Newcombe's interval from their Wilson intervals (Newcombe 1998,
    method 10); None if one of them is of nothing.
    """
    if first is None or second is None:
        return None
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return ShareEstimate(value, value - below, value + above, first.count + second.count)


@dataclass(frozen=True, slots=True)
class StrategyStats:
    """One strategy among the episodes of a tally.

    Attributes:
        name: of the strategy.
        turns: turns that used it.
        share: of all turns.
        per_answer: turns that used it, mean over the episodes.
        keywords_per_answer: its key words in the reasoner's text, mean over the episodes.
        win_rate: accuracy of the episodes that used it; None if none did.
        lift: that, minus the accuracy of the episodes that did not; None if one of the groups is empty.
    """

    name: str
    turns: int
    share: float
    per_answer: float
    keywords_per_answer: float
    win_rate: ShareEstimate | None
    lift: ShareEstimate | None


@dataclass(slots=True)
class Tally:
    """Counts over episodes, fed one at a time."""

    episodes: int = 0
    acc: float = 0.0
    rewarded: int = 0
    """Episodes that have rewards; those of an evaluation have none."""
    planner_reward: float = 0.0
    reasoner_reward: float = 0.0
    tokens: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    """Turns by strategy."""
    used: Counter[int] = field(default_factory=Counter)
    """Episodes by a strategy they used."""
    won: Counter[int] = field(default_factory=Counter)
    """Sum of the accuracies of those."""
    keywords: Counter[int] = field(default_factory=Counter)
    moves: Counter[tuple[int | None, int | None]] = field(default_factory=Counter)
    """Strategy to next strategy; None stands for the beginning and for the end."""

    def add(self, record: EpisodeRecord) -> None:
        """Count one episode; a turn whose strategy this version does not know is left out."""
        chosen = [_INDEX[turn.strategy] for turn in record.turns if turn.strategy in _INDEX]
        self.episodes += 1
        self.acc += record.acc
        if record.planner_reward is not None and record.reasoner_reward is not None:
            self.rewarded += 1
            self.planner_reward += record.planner_reward
            self.reasoner_reward += record.reasoner_reward
        self.tokens += sum(turn.tokens for turn in record.turns)
        self.stops[record.stop] += 1
        self.turns.update(chosen)
        for index in set(chosen):
            self.used[index] += 1
            self.won[index] += record.acc  # type: ignore[assignment]  # a Counter of sums
        for turn in record.turns:
            for index, count in enumerate(count_by_keyword(turn.text)):
                self.keywords[index] += count
        if chosen:
            self.moves.update(zip([None, *chosen], [*chosen, None], strict=True))

    def accuracy(self) -> ShareEstimate | None:
        """Mean accuracy."""
        return wilson(self.acc, self.episodes)

    def mean(self, total: float) -> float:
        """A total per episode; 0 without episodes."""
        return total / self.episodes if self.episodes else 0.0

    def strategies(self) -> list[StrategyStats]:
        """What each strategy did, in the order of :data:`STRATEGIES`."""
        all_turns = self.turns.total()
        found = []
        for index, strategy in enumerate(STRATEGIES):
            used, won = self.used[index], self.won[index]
            win_rate = wilson(won, used)
            without = wilson(self.acc - won, self.episodes - used)
            found.append(
                StrategyStats(
                    name=strategy.name,
                    turns=self.turns[index],
                    share=self.turns[index] / all_turns if all_turns else 0.0,
                    per_answer=self.mean(self.turns[index]),
                    keywords_per_answer=self.mean(self.keywords[index]),
                    win_rate=win_rate,
                    lift=difference(win_rate, without),
                )
            )
        return found

    def transitions(self) -> list[list[float]]:
        """Probability of what follows.

        Returns:
            Ten rows, each strategy and the beginning; ten columns, each strategy and the end. A row sums to 1, or to 0
            where its strategy was never used.
        """
        places: list[int | None] = [*range(len(STRATEGIES)), None]
        counts = [[self.moves[source, target] for target in places] for source in places]
        return [[count / sum(row) if sum(row) else 0.0 for count in row] for row in counts]
