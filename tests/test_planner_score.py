from __future__ import annotations

import itertools

import pytest
from verl_rsim.reward.planner_score import Interaction, PlannerScorer, group_diversity, repeat_share

from verl_rsim.dialogue import Stop
from verl_rsim.errors import ConfigError, RsimError
from verl_rsim.settings import RewardConfig, parse_config
from verl_rsim.strategies import STRATEGIES

NAMES = [strategy.name for strategy in STRATEGIES]
MAX_TURNS = 6


def test_repeats_count_beyond_the_allowance_and_continuation_is_exempt():
    assert repeat_share([], 0) == 0
    assert repeat_share(["validation"] * 4, 1) == 2 / 4  # the third and fourth: used more than once before
    assert repeat_share(["validation"] * 4, 0) == 3 / 4
    assert repeat_share(["continuation"] * 9, 0) == 0


def test_the_reward_is_the_sum_of_its_parts():
    config = RewardConfig(1.0, 0.2, 0.5, 0.3, turn_cost=0.01, token_cost=0.1, max_repeats=0)
    said = Interaction(1.0, ("validation", "validation", "termination", "continuation"), Stop.TERMINATION, 1, (100, 50))
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
    assert PlannerScorer(config).score(Interaction(0.0, (), Stop.BUDGET)).total == 0


def brevity(interaction: Interaction) -> float:
    return 1.0 if len(interaction.strategies) <= 2 else 0.0


def broken(interaction: Interaction) -> float:
    return float("nan")


def scorer(**term) -> PlannerScorer:
    return PlannerScorer(parse_config({"reward": {"terms": [term]}}).reward)


def test_a_term_of_the_users_own_is_weighted_and_reported_by_name():
    score = scorer(name="brevity", path=f"{__name__}.brevity", weight=0.5).score(
        Interaction(1.0, ("validation",), Stop.TERMINATION)
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
        ({"name": "x", "path": "math.sin", "weight": "much"}, "must be of type float"),
        ({"name": "x", "path": "math.sin", "colour": 1}, "give {name: brevity"),
    ],
)
def test_a_term_that_cannot_work_is_refused_at_start_up(term, said):
    with pytest.raises(ConfigError, match=said):
        scorer(**term)


def test_a_term_that_returns_no_finite_number_is_an_error_not_a_reward():
    with pytest.raises(RsimError, match=r"rsim\.reward\.terms\.broken returned nan"):
        scorer(name="broken", path=f"{__name__}.broken").score(Interaction(1.0, (), Stop.BUDGET))


def test_group_diversity_by_hand():
    # multisets {a,a,b}, {a,b,b}: intersection {a,b}, union {a,a,b,b}: distance 1/2; {c} is disjoint from both: 1
    assert group_diversity([["a", "a", "b"], ["a", "b", "b"], ["c"]]) == pytest.approx([0.75, 0.75, 1.0])
    assert group_diversity([["a"], ["a"]]) == [0, 0]
    assert group_diversity([["a"]]) == [0]
    assert group_diversity([[], []]) == [0, 0]


GOOD = (tuple(NAMES[:3]), Stop.TERMINATION)
DEGENERATE = {
    "terminates at once": ((), Stop.TERMINATION),
    "one strategy, never terminates": ((NAMES[0],) * MAX_TURNS, Stop.MAX_TURNS),
    "one strategy, then terminates": ((NAMES[0],) * (MAX_TURNS - 1), Stop.TERMINATION),
    "varied, never terminates": (tuple(NAMES[:MAX_TURNS]), Stop.MAX_TURNS),
    "continuation for ever": (("continuation",) * MAX_TURNS, Stop.MAX_TURNS),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_a_degenerate_planner_earns_no_more_than_a_good_one_unless_it_solves_more(name):
    """Expected rewards under the defaults, over a table of accuracies of the two planners."""
    score = PlannerScorer(RewardConfig()).score

    def expected(planner, accuracy: float) -> float:
        strategies, stop = planner
        right, wrong = (score(Interaction(acc, strategies, stop)).total for acc in (1.0, 0.0))
        return accuracy * right + (1 - accuracy) * wrong

    for good, degenerate in itertools.product([i / 20 for i in range(21)], repeat=2):
        if degenerate < good:
            assert expected(GOOD, good) > expected(DEGENERATE[name], degenerate)
    assert expected(DEGENERATE[name], 1.0) > expected(GOOD, 0.5), "solving the task is worth more than any form"
