"""Each alarm goes off on the metrics that it is for, and no other alarm does."""

from __future__ import annotations

import math

import pytest
from support.metric_samples import WELL

from verl_rsim.config.schema import parse_config
from verl_rsim.monitoring.alarms import RULES, AlarmConfig, AlarmMonitor, AlarmsConfig, AlarmState
from verl_rsim.utils.errors import ConfigError

PROVOKED = {
    "strategy_entropy": {"strategy/entropy": 0.2},
    "one_strategy": {"strategy/decomposition": 0.95},
    "early_termination": {"strategy/termination/turn/1": 0.6},
    "zero_groups": {"reasoner/zero_groups": 1.0},
    "step_length": {"rsim/step_tokens": 70.0},
    "ppo_kl": {"planner/ppo_kl": -0.3},
    "not_finite": {"reasoner/grad_norm": math.nan},
}


def after(alarms: AlarmMonitor, *steps: dict) -> list[list[str]]:
    return [[alert.alarm for alert in alarms.check({**WELL, **step})] for step in steps]


def test_every_alarm_has_a_rule_a_default_and_a_case():
    assert set(RULES) == set(PROVOKED) == set(AlarmsConfig.__slots__)


@pytest.mark.parametrize("alarm", PROVOKED)
def test_an_alarm_goes_off_after_its_steps_in_a_row_and_then_off_again(alarm):
    alarms = AlarmMonitor(AlarmsConfig())
    steps = getattr(AlarmsConfig(), alarm).steps
    assert after(alarms, *[{}] * 6) == [[]] * 6
    bad = PROVOKED[alarm]
    assert after(alarms, *[bad] * (steps - 1), {}) == [[]] * steps, "interrupted"
    assert after(alarms, *[bad] * (steps + 1), {}) == [[]] * (steps - 1) + [[alarm]] * 2 + [[]]


def test_an_alarm_is_fresh_once_and_names_value_limit_and_remedy():
    alarms, metrics = AlarmMonitor(AlarmsConfig()), {**WELL, "planner/ppo_kl": 0.3}
    first, second = alarms.check(metrics)[0], alarms.check({**WELL, "planner/ppo_kl": 0.3})[0]
    assert (first.is_new, second.is_new) == (True, False)
    assert str(first).startswith("alarm ppo_kl (planner): how far the update moved the policy (ppo_kl) is 0.3, ")
    assert "above rsim.alarms.ppo_kl.limit=0.2. Lower the role's optim.lr" in str(first)
    assert metrics["alarm/ppo_kl"] == 1.0
    assert metrics["alarm/not_finite"] == 0.0


def test_a_role_that_is_not_trained_neither_raises_an_alarm_nor_ends_its_count():
    alarms = AlarmMonitor(AlarmsConfig(zero_groups=AlarmConfig("warn", 0.9, 2)))
    bad, idle = {"planner/zero_groups": 1.0}, {"planner/zero_groups": 1.0, "planner/weight": 0.0}
    assert after(alarms, bad, idle, bad) == [[], [], ["zero_groups"]]


def test_the_running_mean_of_the_step_length_stands_still_during_a_blow_up():
    alarms = AlarmMonitor(AlarmsConfig(step_length=AlarmConfig("warn", 2.0, 1)))
    after(alarms, *[{}] * 20)
    assert after(alarms, *[{"rsim/step_tokens": 70.0}] * 30)[-1] == ["step_length"]


def test_another_guard_goes_on_counting_where_one_stopped():
    bad = {"rsim/step_tokens": 70.0, "planner/zero_groups": 1.0}
    whole, first, second = (AlarmMonitor(AlarmsConfig()) for _ in range(3))
    expected = after(whole, *[{}] * 6, *[bad] * 5)
    begun = after(first, *[{}] * 6, *[bad] * 1)
    second.restore(first.state())
    assert begun + after(second, *[bad] * 4) == expected
    assert expected[7] == ["step_length"], "its running mean went along"
    assert expected[-1] == ["zero_groups", "step_length"]
    second.restore(AlarmState())
    assert after(second, *[bad] * 2) == [[], []]


def test_an_alarm_that_is_off_is_not_even_measured():
    alarms, metrics = (
        AlarmMonitor(AlarmsConfig(not_finite=AlarmConfig("off", 0, 1))),
        {**WELL, "planner/loss": math.inf},
    )
    assert alarms.check(metrics) == []
    assert "alarm/not_finite" not in metrics


def test_settings_keep_the_other_values_of_an_alarm_and_refuse_what_cannot_be():
    alarms = parse_config({"alarms": {"ppo_kl": {"action": False}, "zero_groups": {"steps": 9}}}).alarms
    assert alarms.ppo_kl == AlarmConfig("off", 0.2, 1), "YAML reads a bare off as false"
    assert alarms.zero_groups == AlarmConfig("warn", 0.9, 9)
    for bad, said in (
        ({"ppo_kl": {"action": "shout"}}, "rsim.alarms.ppo_kl.action='shout': choose one of off, warn, save, stop"),
        ({"ppo_kl": {"steps": 0}}, "rsim.alarms.ppo_kl.steps=0: must be >= 1"),
        ({"ppo_kl": {"limit": -1}}, "rsim.alarms.ppo_kl.limit=-1.0: must be a number >= 0"),
        ({"reward": {}}, "unknown key"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse_config({"alarms": bad})
