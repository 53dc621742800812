from __future__ import annotations

import math

import pytest
from support.metric_samples import BATCH, INFO, summary

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.metrics import group_metrics, reward_metrics, rollout_metrics
from verl_rsim.monitoring.strategy_metrics import strategy_metrics


def test_dialogue_metrics_of_a_small_batch():
    found = rollout_metrics(BATCH)
    assert found["rsim/turns"] == pytest.approx(5 / 3)
    assert (found["rsim/turns/min"], found["rsim/turns/max"]) == (1, 2)
    assert found["rsim/stop/termination"] == pytest.approx(2 / 3)
    assert found["rsim/step_tokens"] == 5
    assert found["rsim/step_end/length"] == 0.2
    assert found["rsim/truncated"] == pytest.approx(1 / 3)
    assert (found["planner/generated_tokens"], found["reasoner/generated_tokens"]) == (5, 25)
    assert (found["planner/server_seconds"], found["reasoner/server_seconds"]) == (0.5, 1.5)


def test_strategies_by_frequency_and_position():
    found = strategy_metrics(BATCH, [1.0, 0.0, 1.0])
    assert found["strategy/self_reflection"] == 0.6
    assert found["strategy/entropy"] == pytest.approx(-(0.6 * math.log(0.6) + 0.4 * math.log(0.4)))
    assert found["strategy/per_episode"] == pytest.approx(4 / 3)
    assert found["strategy/termination/turn/1"] == pytest.approx(1 / 3)
    assert found["strategy/termination/turn/2"] == 0.5, "of the two episodes that have a second turn"
    assert sum(found[f"strategy/{s.name}/turn/2"] for s in STRATEGIES) == 1


def test_transitions_count_the_pairs_that_occurred():
    found = strategy_metrics(BATCH, [1.0, 0.0, 1.0])
    transitions = {key: value for key, value in found.items() if key.startswith("transition/")}
    assert transitions == {
        "transition/self_reflection/self_reflection": 1,
        "transition/self_reflection/termination": 1,
    }


def test_lift_is_accuracy_with_minus_without():
    found = strategy_metrics(BATCH, [1.0, 0.0, 1.0])
    assert (found["strategy/self_reflection/win_rate"], found["strategy/self_reflection/lift"]) == (0.5, -0.5)
    assert (found["strategy/termination/win_rate"], found["strategy/termination/lift"]) == (1.0, 1.0)
    assert "strategy/validation/win_rate" not in found, "nobody used it"
    at_turn_2 = {name: found[f"strategy/{name}/turn/2/lift"] for name in ("self_reflection", "termination")}
    assert at_turn_2 == {"self_reflection": -1.0, "termination": 1.0}, "of the two that have a second turn"
    assert found["strategy/termination/turn/1/win_rate"] == 1.0
    assert "strategy/self_reflection/lift" not in strategy_metrics(BATCH[:2], [1.0, 0.0]), "nobody did without it"


def test_obedience_compares_a_strategys_key_words_under_it_and_elsewhere():
    found = strategy_metrics(BATCH, [1.0, 0.0, 1.0])
    assert found["strategy/self_reflection/keywords"] == pytest.approx(1 / 3)
    assert found["strategy/self_reflection/obedience"] == pytest.approx(1 / 3 - 1 / 2)
    assert found["strategy/termination/obedience"] == pytest.approx(1 / 2 - 0)
    assert found["strategy/obedience"] == pytest.approx((3 * (1 / 3 - 1 / 2) + 2 * (1 / 2)) / 5), "mean over steps"


def test_a_batch_in_which_nothing_was_said():
    silent = [summary([], "prompt_too_long", [])]
    found = rollout_metrics(silent) | strategy_metrics(silent, [0.0])
    assert found["rsim/stop/prompt_too_long"] == found["rsim/truncated"] == 1
    assert found["strategy/entropy"] == 0
    assert "strategy/obedience" not in found


def test_reward_metrics():
    found = reward_metrics([INFO, {**INFO, "acc": 0.0, "planner_reward": 0.1, "planner_accuracy": 0.0}])
    assert found["reasoner/acc"] == 0.5
    assert found["planner/reward"] == pytest.approx(0.6)
    assert found["planner/reward/std"] == pytest.approx(0.5)
    assert found["planner/reward/accuracy"] == 0.5


def test_a_group_of_equal_rewards_teaches_its_role_nothing():
    lower = {**INFO, "planner_reward": 0.9}
    found = group_metrics(["a_0_1", "b_x_0_1", "a_1_1", "b_x_1_1"], [INFO, INFO, lower, INFO])
    assert (found["planner/zero_groups"], found["reasoner/zero_groups"]) == (0.5, 1.0)
