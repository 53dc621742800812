"""The planner's reward: a weighted sum of terms, each of them reported.

The first three terms are the paper's (R_acc, R_terminal, R_penalty); their exact form, the default weights and the
other terms are this project's:

- accuracy: the task's accuracy of the reasoner's answer, in [0, 1];
- termination: 1 if the episode ended because the planner chose *termination*, else 0; with
  ``termination_if_right`` the accuracy instead of 1, so that stopping at once pays nothing before anything is solved;
- diversity: minus the share of turns that use a strategy already used more than ``max_repeats`` times before in the
  episode; *continuation* is exempt;
- unparsed (free decoding only): minus the share of turns in which the planner named no strategy;
- turn_cost: minus the number of turns (off by default);
- token_cost: minus the number of the reasoner's step tokens, in thousands (off by default);
- group_diversity: how much the episode differs from its siblings, in [0, 1] (off by default). It needs all
  episodes of a question at once, so the trainer adds it: see :func:`group_diversity`;
- the user's own terms: ``rsim.reward.terms`` names functions ``f(episode: EpisodeOutcome) -> float``.
"""

from __future__ import annotations

import math
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from verl_rsim.core.dialogue import Stop
from verl_rsim.core.strategies import CONTINUATION
from verl_rsim.reward.config import RewardConfig
from verl_rsim.utils.errors import ConfigError, RsimError


@dataclass(frozen=True, slots=True)
class EpisodeOutcome:
    """What a term of the planner's reward may look at.

    Attributes:
        accuracy: of the reasoner's answer, in [0, 1].
        strategies: names in the order of use.
        stop: why the episode ended.
        unparsed: positions of the turns in which a free-form planner named no strategy.
        step_tokens: tokens of each of the reasoner's steps.
    """

    accuracy: float
    strategies: tuple[str, ...]
    stop: Stop
    unparsed: tuple[int, ...] = ()
    step_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannerScore:
    """A planner's reward, taken apart in two ways.

    Attributes:
        parts: the weighted terms by name.
        turns: what each turn brought: the costs of its own choice; the last one also what the whole episode earned.
    """

    parts: Mapping[str, float]
    turns: Sequence[float]

    @property
    def total(self) -> float:
        """The reward: the sum of the parts."""
        return math.fsum(self.parts.values())


Term = Callable[[EpisodeOutcome], float]


class PlannerScorer:
    """Scores episodes.

    Args:
        config: the weights, and the user's own terms.

    Raises:
        ConfigError: a term's function cannot be found.
    """

    def __init__(self, config: RewardConfig):
        self.config = config
        self._own: dict[str, tuple[float, Term]] = {
            term.name: (term.weight, load_term(f"rsim.reward.terms.{term.name}", term.path)) for term in config.terms
        }

    def score(self, episode: EpisodeOutcome) -> PlannerScore:
        """Score one episode, without the part that needs its siblings.

        Raises:
            RsimError: a term of the user's returned something else than a finite number.
        """
        config, turns = self.config, len(episode.strategies)
        terminated = float(episode.stop is Stop.TERMINATION)
        if config.termination_if_right:
            terminated *= episode.accuracy
        repeated = repeats(episode.strategies, config.max_repeats)
        by_turn = {
            "diversity": [-config.diversity / turns * (turn in repeated) for turn in range(turns)],
            "unparsed": [-config.unparsed / turns * (turn in episode.unparsed) for turn in range(turns)],
            "turn_cost": [-config.turn_cost] * turns,
            "token_cost": [-config.token_cost * tokens / 1000 for tokens in episode.step_tokens],
        }
        earned = {"accuracy": config.accuracy * episode.accuracy, "termination": config.termination * terminated}
        for name, (weight, term) in self._own.items():
            value = term(episode)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise RsimError(f"rsim.reward.terms.{name} returned {value!r}; it must return a finite number")
            earned[name] = weight * value
        brought = [math.fsum(costs) for costs in zip_longest(*by_turn.values(), fillvalue=0.0)]
        brought[-1:] = [math.fsum((*brought[-1:], *earned.values()))]
        return PlannerScore(earned | {name: math.fsum(costs) for name, costs in by_turn.items()}, brought)


def load_term(key: str, path: str) -> Term:
    """The function at a dotted path such as ``my_package.rewards.brevity``.

    Args:
        key: the setting that names it, for the error.
        path: where it is.

    Raises:
        ConfigError: there is no such function.
    """
    try:
        term = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        fix = f"name an importable function, e.g. my_package.rewards.brevity ({error})"
        raise ConfigError(key, path, fix) from error
    if not callable(term):
        raise ConfigError(key, path, "must be a function that takes an EpisodeOutcome and returns a number")
    return term


def repeats(strategies: Sequence[str], max_repeats: int) -> frozenset[int]:
    """Positions of the turns that repeat a strategy used more than ``max_repeats`` times before."""
    used: Counter[str] = Counter()
    found = set()
    for turn, name in enumerate(strategies):
        if name != CONTINUATION and used[name] > max_repeats:
            found.add(turn)
        used[name] += 1
    return frozenset(found)


def group_diversity(siblings: Sequence[Sequence[int | str]]) -> list[float]:
    """How much each episode of a question differs from the others, in [0, 1].

    One minus the Jaccard similarity of two episodes' strategies as multisets, averaged over the others. An
    episode without siblings has 0.

    Args:
        siblings: the strategies of each episode of one question.
    """
    bags = [Counter(strategies) for strategies in siblings]
    if len(bags) < 2:
        return [0.0] * len(bags)
    return [math.fsum(_distance(a, b) for b in bags if b is not a) / (len(bags) - 1) for a in bags]


def _distance(a: Counter, b: Counter) -> float:
    union = (a | b).total()
    return 1 - (a & b).total() / union if union else 0.0
