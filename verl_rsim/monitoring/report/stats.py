"""Computes the report's statistics: proportions with confidence intervals, and counts of episodes. Pure Python."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from verl_rsim.core.episode_record import EpisodeRecord
from verl_rsim.core.strategies import STRATEGIES, count_by_keyword

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""

_STRATEGY_INDEX = {strategy.name: index for index, strategy in enumerate(STRATEGIES)}


@dataclass(frozen=True, slots=True)
class ShareEstimate:
    """Holds an estimated share, or a difference of shares, with its 95 % confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number of episodes that it rests on.
    """

    value: float
    low: float
    high: float
    count: int


def wilson(successes: float, total: int, z: float = Z95) -> ShareEstimate | None:
    """Returns a proportion with Wilson's score interval (Wilson 1927), or None without trials.

    Args:
        successes: Number of successes in [0, total]. May be a fraction if answers can be partly right; the interval is
            then too wide.
        total: Number of trials.
        z: Quantile of the normal distribution.
    """
    if not total:
        return None
    share = successes / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return ShareEstimate(share, max(0.0, centre - half), min(1.0, centre + half), total)


def difference(first: ShareEstimate | None, second: ShareEstimate | None) -> ShareEstimate | None:
    """Returns the difference of two independent proportions, or None if one of them is None.

    The interval is Newcombe's (Newcombe 1998, method 10), which combines the two Wilson intervals.
    """
    if first is None or second is None:
        return None
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return ShareEstimate(value, value - below, value + above, first.count + second.count)


@dataclass(frozen=True, slots=True)
class StrategyStats:
    """Holds the statistics of one strategy over the episodes of a tally.

    Attributes:
        name: Name of the strategy.
        turns: Number of turns that used it.
        share: Share of all turns.
        per_answer: Turns that used it per episode.
        keywords_per_answer: Occurrences of its key words in the reasoner's text per episode.
        win_rate: Accuracy of the episodes that used it; None if none did.
        lift: Win rate minus the accuracy of the other episodes; None if all or no episodes used it.
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
    """Counts episodes, one at a time.

    Attributes:
        episodes: Number of episodes.
        acc: Sum of the accuracies.
        rewarded: Number of episodes with rewards; those of an evaluation have none.
        planner_reward: Sum of the planner's rewards.
        reasoner_reward: Sum of the reasoner's rewards.
        tokens: Sum of the steps' tokens.
        stops: Episodes by the reason for which they ended.
        turns: Turns by strategy.
        used: Episodes by strategy that they used at least once.
        won: Sum of the accuracies of those episodes, by strategy.
        keywords: Occurrences of key words by strategy.
        moves: Pairs of consecutive strategies; None stands for the beginning and for the end of an episode.
    """

    episodes: int = 0
    acc: float = 0.0
    rewarded: int = 0
    planner_reward: float = 0.0
    reasoner_reward: float = 0.0
    tokens: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    used: Counter[int] = field(default_factory=Counter)
    won: Counter[int] = field(default_factory=Counter)
    keywords: Counter[int] = field(default_factory=Counter)
    moves: Counter[tuple[int | None, int | None]] = field(default_factory=Counter)

    def add(self, record: EpisodeRecord) -> None:
        """Counts an episode. Ignores the strategies of turns that this version does not know."""
        chosen = [_STRATEGY_INDEX[turn.strategy] for turn in record.turns if turn.strategy in _STRATEGY_INDEX]
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
        """Returns the mean accuracy with its interval; None without episodes."""
        return wilson(self.acc, self.episodes)

    def mean(self, total: float) -> float:
        """Returns a total divided by the number of episodes; 0 without episodes."""
        return total / self.episodes if self.episodes else 0.0

    def strategies(self) -> list[StrategyStats]:
        """Returns the statistics of each strategy, in the order of :data:`STRATEGIES`."""
        all_turns = self.turns.total()
        stats = []
        for index, strategy in enumerate(STRATEGIES):
            used, won = self.used[index], self.won[index]
            win_rate = wilson(won, used)
            without = wilson(self.acc - won, self.episodes - used)
            stats.append(
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
        return stats

    def transitions(self) -> list[list[float]]:
        """Returns the probabilities of the next strategy.

        Returns:
            Ten rows, one for each strategy and one for the beginning, of ten columns, one for each strategy and one for
            the end. A row sums to 1, or to 0 if its strategy was never used.
        """
        ends: list[int | None] = [*range(len(STRATEGIES)), None]
        rows = []
        for source in ends:
            counts = [self.moves[source, target] for target in ends]
            total = sum(counts)
            rows.append([count / total if total else 0.0 for count in counts])
        return rows
