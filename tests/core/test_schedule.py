from __future__ import annotations

import pytest

from verl_rsim.core.schedule import PRESETS, Stage, build_schedule
from verl_rsim.utils.errors import ConfigError


def weights(schedule, steps):
    return [(schedule.at(s).planner_weight, schedule.at(s).reasoner_weight) for s in range(1, steps + 1)]


def test_leader_first_trains_the_planner_alone_and_then_both():
    assert weights(build_schedule("leader_first", 0.25, 4), 5) == [
        (1, 0),
        (1, 0),
        (0.25, 0.75),
        (0.25, 0.75),
        (0.25, 0.75),
    ]


def test_follower_first_is_the_mirror_image():
    assert weights(build_schedule("follower_first", 0.5, 2), 2) == [(0, 1), (0.5, 0.5)]


def test_alternating_switches_every_step_and_joint_never():
    assert weights(build_schedule("alternating", 0.5, 4), 4) == [(1, 0), (0, 1)] * 2
    assert weights(build_schedule("joint", 0.3, 3), 3) == [(0.3, 0.7)] * 3


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 7, 10])
def test_updates_are_counted_by_policy(name, steps):
    schedule = build_schedule(name, 1.0, 7)
    counted = weights(schedule, steps)
    assert schedule.updates("planner", steps) == sum(planner > 0 for planner, _ in counted)
    assert schedule.updates("reasoner", steps) == sum(reasoner > 0 for _, reasoner in counted)
    assert schedule.updates("shared", steps) == steps


def test_own_stages_by_fraction_and_step():
    spec = [
        {"until": 0.5, "planner_weight": 1, "reasoner_weight": 0},
        {"until": 9, "planner_weight": 0, "reasoner_weight": 1.0},
    ]
    assert build_schedule(spec, 0.5, 10).stages == (Stage(5, 1.0, 0.0), Stage(9, 0.0, 1.0))


@pytest.mark.parametrize(
    ("spec", "weight", "key"),
    [
        ("leader_first", 1.5, "rsim.lambda"),
        ("leader_first", -0.1, "rsim.lambda"),
        ("leader_first", True, "rsim.lambda"),
        ("leaders_first", 0.5, "rsim.schedule"),
        ([], 0.5, "rsim.schedule"),
        ([{"until": 2, "planner_weight": 2, "reasoner_weight": 0}], 0.5, "rsim.schedule[0].planner_weight"),
        ([{"until": 2, "planner": 1, "reasoner_weight": 0}], 0.5, "rsim.schedule[0].planner"),
        ([{"until": 2, "planner_weight": 1}], 0.5, "rsim.schedule[0].reasoner_weight"),
        ([{"until": 0, "planner_weight": 1, "reasoner_weight": 0}], 0.5, "rsim.schedule[0].until"),
        (
            [{"until": 2, "planner_weight": 1, "reasoner_weight": 0}] * 2,
            0.5,
            "rsim.schedule[1].until",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_key(spec, weight, key):
    with pytest.raises(ConfigError) as refused:
        build_schedule(spec, weight, 10)
    assert refused.value.key == key


def test_a_stage_that_trains_nobody_is_refused():
    with pytest.raises(ConfigError, match=r"rsim\.schedule\[0\]"):
        build_schedule("leader_first", 0.5, 4).check_trainable(frozenset({"planner"}))
    build_schedule("joint", 0.5, 4).check_trainable(frozenset({"planner"}))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_presets_cover_every_step(name, steps):
    build_schedule(name, 0.5, steps).check_trainable(frozenset())
