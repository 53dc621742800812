"""Computes the planner's reward: a weighted sum of terms, each reported by name.

The first three terms are the paper's (R_acc, R_terminal, R_penalty); their exact form, the default weights and the
other terms are this project's:

- accuracy: accuracy of the reasoner's answer, in [0, 1];
- termination: 1 if the episode ended because the planner chose *termination*, else 0. With ``termination_if_right`` it
  is the accuracy instead of 1, so that stopping at once earns nothing as long as nothing is solved;
- diversity: minus the share of turns that use a strategy which the episode has used more than ``max_repeats`` times
  before; *continuation* is exempt;
- unparsed (free decoding only): minus the share of turns in which the planner named no strategy;
- turn_cost: minus the number of turns (off by default);
- token_cost: minus the number of the reasoner's step tokens, in thousands (off by default);
- group_diversity: difference of the episode from the others of the same question, in [0, 1] (off by default). It needs
  all episodes of a question at once, so the trainer adds it; see :func:`group_diversity`;
- custom terms: ``rsim.reward.terms`` names functions ``f(episode: EpisodeOutcome) -> float``.
"""

from __future__ import annotations

import math
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from verl_rsim.core.episode import Stop
from verl_rsim.core.strategies import CONTINUATION
from verl_rsim.reward.config import RewardConfig
from verl_rsim.utils.errors import ConfigError, RsimError


@dataclass(frozen=True, slots=True)
class EpisodeOutcome:
    """Result of an episode, from which the terms of the planner's reward are computed.

    Attributes:
        accuracy: accuracy of the reasoner's answer, in [0, 1].
        strategies: names of the strategies in the order of use, one per turn.
        stop: reason why the episode ended.
        unparsed: positions of the turns in which a free-form planner named no strategy.
        step_tokens: number of tokens of each of the reasoner's steps.
    """

    accuracy: float
    strategies: tuple[str, ...]
    stop: Stop
    unparsed: tuple[int, ...] = ()
    step_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannerScore:
    """A planner's reward, split by term and by turn.

    Attributes:
        parts: weighted terms by name.
        turns: reward of each turn: the costs of its own choice, and in the last turn all that the episode earned.
    """

    parts: Mapping[str, float]
    turns: Sequence[float]

    @property
    def total(self) -> float:
        """The reward: sum of the parts."""
        return math.fsum(self.parts.values())


Term = Callable[[EpisodeOutcome], float]


class PlannerScorer:
    """Computes the planner's reward of episodes.

    Args:
        config: weights and custom terms.

    Raises:
        ConfigError: the function of a custom term cannot be found.
    """

    def __init__(self, config: RewardConfig):
        self.config = config
        self._custom_terms: dict[str, tuple[float, Term]] = {
            term.name: (term.weight, load_term(f"rsim.reward.terms.{term.name}", term.path)) for term in config.terms
        }

    def score(self, episode: EpisodeOutcome) -> PlannerScore:
        """Scores one episode, without ``group_diversity``, which needs the other episodes of the question.

        Raises:
            RsimError: a custom term returned something else than a finite number.
        """
        earned = self._episode_terms(episode)
        costs = self._turn_terms(episode)
        # There may be fewer reasoner's steps than turns; the missing token costs are 0.
        turns = [math.fsum(turn_costs) for turn_costs in zip_longest(*costs.values(), fillvalue=0.0)]
        if turns:  # an episode without turns has nothing to put its reward on
            turns[-1] = math.fsum((turns[-1], *earned.values()))
        parts = earned | {name: math.fsum(by_turn) for name, by_turn in costs.items()}
        return PlannerScore(parts, turns)

    def _episode_terms(self, episode: EpisodeOutcome) -> dict[str, float]:
        """Returns the weighted terms of the whole episode by name."""
        config = self.config
        terminated = float(episode.stop is Stop.TERMINATION)
        if config.termination_if_right:
            terminated *= episode.accuracy
        terms = {"accuracy": config.accuracy * episode.accuracy, "termination": config.termination * terminated}
        for name, (weight, term) in self._custom_terms.items():
            value = term(episode)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise RsimError(f"rsim.reward.terms.{name} returned {value!r}; it must return a finite number")
            terms[name] = weight * value
        return terms

    def _turn_terms(self, episode: EpisodeOutcome) -> dict[str, list[float]]:
        """Returns the weighted terms of each turn by name."""
        config, turns = self.config, len(episode.strategies)
        repeated = repeats(episode.strategies, config.max_repeats)
        return {
            "diversity": [-config.diversity / turns * (turn in repeated) for turn in range(turns)],
            "unparsed": [-config.unparsed / turns * (turn in episode.unparsed) for turn in range(turns)],
            "turn_cost": [-config.turn_cost] * turns,
            "token_cost": [-config.token_cost * tokens / 1000 for tokens in episode.step_tokens],
        }


def load_term(key: str, path: str) -> Term:
    """Imports the function at a dotted path such as ``my_package.rewards.brevity``.

    Args:
        key: configuration key that names the function, for error messages.
        path: dotted path of the function.

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
    """Returns the positions of the turns that repeat a strategy used more than ``max_repeats`` times before."""
    used: Counter[str] = Counter()
    repeated = set()
    for turn, name in enumerate(strategies):
        if name != CONTINUATION and used[name] > max_repeats:
            repeated.add(turn)
        used[name] += 1
    return frozenset(repeated)


def group_diversity(siblings: Sequence[Sequence[int | str]]) -> list[float]:
    """Returns the mean distance of each episode of a question from the others, in [0, 1].

    The distance of two episodes is one minus the Jaccard similarity of their strategies as multisets. An episode
    without siblings has 0.

    Args:
        siblings: strategies of each episode of one question.
    """
    bags = [Counter(strategies) for strategies in siblings]
    if len(bags) < 2:
        return [0.0] * len(bags)
    means = []
    for bag in bags:
        distances = [_jaccard_distance(bag, other) for other in bags if other is not bag]
        means.append(math.fsum(distances) / len(distances))
    return means


def _jaccard_distance(a: Counter, b: Counter) -> float:
    union = (a | b).total()
    return 1 - (a & b).total() / union if union else 0.0
