"""The planner's reward: accuracy + termination + diversity, each part reported.

The terms are the paper's (R_acc, R_terminal, R_penalty); their exact form and default weights are this project's:

- accuracy: the task's accuracy of the reasoner's answer, in [0, 1];
- termination: 1 if the interaction ended because the planner chose *termination*, else 0;
- diversity: minus the share of turns that use a strategy already used more than ``max_repeats`` times before in the
  interaction; *continuation* is exempt;
- unparsed (free decoding only): minus the share of turns in which the planner named no strategy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from verl_rsim.settings import RewardConfig
from verl_rsim.strategies import CONTINUATION


@dataclass(frozen=True, slots=True)
class PlannerScore:
    """The weighted parts of a planner's reward."""

    accuracy: float
    termination: float
    diversity: float
    unparsed: float

    @property
    def total(self) -> float:
        """The reward: the sum of the parts."""
        return self.accuracy + self.termination + self.diversity + self.unparsed


def repeat_share(strategies: Sequence[str], max_repeats: int) -> float:
    """Share of turns that repeat a strategy used more than ``max_repeats`` times before; 0 for no turns."""
    used: Counter[str] = Counter()
    repeats = 0
    for name in strategies:
        if name != CONTINUATION and used[name] > max_repeats:
            repeats += 1
        used[name] += 1
    return repeats / len(strategies) if strategies else 0.0


def score_planner(
    accuracy: float, strategies: Sequence[str], terminated: bool, unparsed_turns: int, config: RewardConfig
) -> PlannerScore:
    """Score one interaction.

    Args:
        accuracy: of the reasoner's answer, in [0, 1].
        strategies: names in the order of use.
        terminated: whether it ended by *termination*.
        unparsed_turns: turns in which a free-form planner named no strategy.
        config: the weights.
    """
    return PlannerScore(
        accuracy=config.accuracy * accuracy,
        termination=config.termination * float(terminated),
        diversity=-config.diversity * repeat_share(strategies, config.max_repeats),
        unparsed=-config.unparsed * (unparsed_turns / len(strategies) if strategies else 0.0),
    )
