from __future__ import annotations

import math

import pytest

from verl_rsim.metrics import interaction_metrics, reward_metrics


def summary(strategies, stop, lengths):
    return {
        "strategies": strategies,
        "unparsed": 0,
        "stop": stop,
        "step_tokens": lengths,
        "step_ends": ["delimiter"] * len(strategies),
    }


def test_dialogue_metrics_of_a_small_batch():
    found = interaction_metrics([summary([0, 8], "termination", [4, 6]), summary([0, 0], "max_turns", [2, 8])])
    assert found["strategy/self_reflection"] == 0.75
    assert found["strategy/termination"] == 0.25
    assert found["strategy/entropy"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert found["strategy/per_interaction"] == 1.5
    assert found["rsim/turns"] == 2
    assert found["rsim/stop/termination"] == found["rsim/stop/max_turns"] == 0.5
    assert found["rsim/step_tokens"] == 5
    assert found["rsim/step_end/delimiter"] == 1
    assert found["rsim/interactions"] == 2


def test_a_batch_in_which_nothing_was_said():
    found = interaction_metrics([summary([], "prompt_too_long", [])])
    assert found["rsim/stop/prompt_too_long"] == 1
    assert found["strategy/entropy"] == 0


def test_reward_metrics():
    info = {
        "acc": 1.0,
        "planner_reward": 1.1,
        "reasoner_reward": 1.0,
        "planner_accuracy": 1.0,
        "planner_termination": 0.1,
        "planner_diversity": 0.0,
        "planner_unparsed": 0.0,
    }
    found = reward_metrics([info, {**info, "acc": 0.0, "planner_reward": 0.1, "planner_accuracy": 0.0}])
    assert found["reasoner/acc"] == 0.5
    assert found["planner/reward"] == pytest.approx(0.6)
    assert found["planner/reward/std"] == pytest.approx(0.5)
    assert found["planner/reward/accuracy"] == 0.5
