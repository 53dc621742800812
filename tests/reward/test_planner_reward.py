from __future__ import annotations

import itertools

import pytest

from verl_rsim.config.schema import parse_config
from verl_rsim.core.episode import Stop
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.reward.config import RewardConfig
from verl_rsim.reward.planner_reward import EpisodeOutcome, PlannerScorer, group_diversity, repeats
from verl_rsim.utils.errors import ConfigError, RsimError

NAMES = [strategy.name for strategy in STRATEGIES]
MAX_TURNS = 6


def test_repeats_count_beyond_the_allowance_and_continuation_is_exempt():
    assert repeats([], 0) == set()
    assert repeats(["validation"] * 4, 1) == {2, 3}, "the third and fourth: used more than once before"
    assert repeats(["validation"] * 4, 0) == {1, 2, 3}
    assert repeats(["continuation"] * 9, 0) == set()


def test_the_reward_is_the_sum_of_its_parts():
    config = RewardConfig(
        accuracy=1.0, termination=0.2, diversity=0.5, unparsed=0.3, turn_cost=0.01, token_cost=0.1, max_repeats=0
    )
    said = EpisodeOutcome(
        1.0, ("validation", "validation", "termination", "continuation"), Stop.TERMINATION, (0,), (100, 50)
    )
    score = PlannerScorer(config).score(said)
    expected = {
        "accuracy": 1.0,
        "termination": 0.2,
        "diversity": -0.5 / 4,
        "unparsed": -0.3 / 4,
        "turn_cost": -0.04,
        "token_cost": -0.015,
    }
    assert score.parts == pytest.approx(expected)
    assert score.total == pytest.approx(1.0 + 0.2 - 0.125 - 0.075 - 0.04 - 0.015)
    choices = [-0.3 / 4 - 0.01 - 0.01, -0.5 / 4 - 0.01 - 0.005, -0.01]
    assert score.turns == pytest.approx([*choices, 1.0 + 0.2 - 0.01]), "each turn bears the costs of its own choice"
    nothing = PlannerScorer(config).score(EpisodeOutcome(0.0, (), Stop.BUDGET))
    assert nothing.total == sum(nothing.turns) == 0


def brevity(episode: EpisodeOutcome) -> float:
    return 1.0 if len(episode.strategies) <= 2 else 0.0


def broken(episode: EpisodeOutcome) -> float:
    return float("nan")


def scorer(**term) -> PlannerScorer:
    return PlannerScorer(parse_config({"reward": {"terms": [term]}}).reward)


def test_a_term_of_the_users_own_is_weighted_and_reported_by_name():
    score = scorer(name="brevity", path=f"{__name__}.brevity", weight=0.5).score(
        EpisodeOutcome(1.0, ("validation",), Stop.TERMINATION)
    )
    assert score.parts["brevity"] == 0.5
    assert score.total == pytest.approx(1.0 + 0.1 + 0.5)


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ({"name": "x", "path": "nowhere.at_all"}, "importable function"),
        ({"name": "x", "path": "math.pi"}, "must be a function"),
        ({"name": "accuracy", "path": "math.sin"}, "no other term has"),
        ({"name": "two words", "path": "math.sin"}, "must be a word"),
        ({"name": "x"}, "give {name: brevity"),
        ({"name": "x", "path": "math.sin", "weight": "much"}, "must be a finite number"),
        ({"name": "x", "path": "math.sin", "colour": 1}, "give {name: brevity"),
    ],
)
def test_a_term_that_cannot_work_is_refused_at_start_up(term, said):
    with pytest.raises(ConfigError, match=said):
        scorer(**term)


def test_a_term_that_returns_no_finite_number_is_an_error_not_a_reward():
    with pytest.raises(RsimError, match=r"rsim\.reward\.terms\.broken returned nan"):
        scorer(name="broken", path=f"{__name__}.broken").score(EpisodeOutcome(1.0, (), Stop.BUDGET))


def test_group_diversity_by_hand():
    # multisets {a,a,b}, {a,b,b}: intersection {a,b}, union {a,a,b,b}: distance 1/2; {c} is disjoint from both: 1
    assert group_diversity([["a", "a", "b"], ["a", "b", "b"], ["c"]]) == pytest.approx([0.75, 0.75, 1.0])
    assert group_diversity([["a"], ["a"]]) == [0, 0]
    assert group_diversity([["a"]]) == [0]
    assert group_diversity([[], []]) == [0, 0]


def test_termination_can_be_paid_by_what_is_solved():
    score = PlannerScorer(RewardConfig(termination=0.2, termination_if_right=True)).score
    assert score(EpisodeOutcome(0.0, ("termination",), Stop.TERMINATION)).total == 0
    assert score(EpisodeOutcome(1.0, ("termination",), Stop.TERMINATION)).total == pytest.approx(1.2)


@pytest.mark.parametrize("weight", ["accuracy", "termination", "diversity", "turn_cost", "token_cost"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_weight_is_finite_and_not_negative(weight, value):
    with pytest.raises(ConfigError, match=f"rsim.reward.{weight}"):
        parse_config({"reward": {weight: value}})


# Planners as the dialogue plays them: an episode that ends by termination has it as its last strategy.
GOOD = (*NAMES[:3], "termination"), Stop.TERMINATION
DEGENERATE = {
    "terminates at once": (("termination",), Stop.TERMINATION),
    "one strategy, never terminates": ((NAMES[0],) * MAX_TURNS, Stop.MAX_TURNS),
    "one strategy, then terminates": ((*[NAMES[0]] * (MAX_TURNS - 1), "termination"), Stop.TERMINATION),
    "one strategy until the row is full": ((NAMES[0],) * 4, Stop.BUDGET),
    "one turn, the reasoner ends": ((NAMES[0],), Stop.REASONER_EOS),
    "varied, never terminates": (tuple(NAMES[:MAX_TURNS]), Stop.MAX_TURNS),
    "continuation for ever": (("continuation",) * MAX_TURNS, Stop.MAX_TURNS),
}
PATIENT = tuple(NAMES[:3]), Stop.REASONER_EOS
"""Plans well and never chooses *termination*: it loses the term that pays for it, and no more."""


def expected(planner, accuracy: float, config: RewardConfig) -> float:
    """The mean reward of a planner whose episodes are right with this probability."""
    score, (strategies, stop) = PlannerScorer(config).score, planner
    right, wrong = (score(EpisodeOutcome(acc, strategies, stop)).total for acc in (1.0, 0.0))
    return accuracy * right + (1 - accuracy) * wrong


TABLE = [(i / 20, j / 20) for i, j in itertools.product(range(21), repeat=2) if j < i]


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_planner_earns_less_than_a_good_one_that_solves_more(name):
    for good, degenerate in TABLE:
        assert expected(GOOD, good, RewardConfig()) > expected(DEGENERATE[name], degenerate, RewardConfig())
    assert expected(DEGENERATE[name], 1.0, RewardConfig()) > expected(GOOD, 0.5, RewardConfig())


def test_stopping_at_once_beats_solving_a_little_more_without_stopping_unless_it_is_paid_by_accuracy():
    at_once = DEGENERATE["terminates at once"]
    assert expected(at_once, 0.0, RewardConfig()) > expected(PATIENT, 0.05, RewardConfig())
    assert all(
        expected(PATIENT, good, RewardConfig()) > expected(at_once, quick, RewardConfig())
        for good, quick in TABLE
        if good >= quick + 0.15
    )
    paid = RewardConfig(termination_if_right=True)
    assert all(
        expected(PATIENT, good, paid) > expected(at_once, quick, paid)
        for good, quick in TABLE
        if good > 1.1 * quick + 1e-9
    )
