"""Every logged metric is documented, and every documented metric is logged."""

from __future__ import annotations

from support.metric_samples import BATCH, INFO, WELL

from verl_rsim.monitoring.alarms import AlarmMonitor, AlarmsConfig
from verl_rsim.monitoring.metrics import group_metrics, reward_metrics, rollout_metrics
from verl_rsim.monitoring.strategy_metrics import strategy_metrics

FROM_THE_TRAINER = {"rsim/stage", "rsim/failed", "{role}/weight"}


def logged() -> dict[str, float]:
    info = INFO | {
        "answered": 1.0,
        "passed": 1.0,
        "score_seconds": 0.1,
        "score_queue": 0.0,
        "scorer_failed": 0.0,
        "reason": "right",
    }
    found = rollout_metrics(BATCH) | strategy_metrics(BATCH, [1.0, 0.0, 1.0]) | reward_metrics([info])
    found |= group_metrics(["a_0_1"], [info])
    watched = dict(WELL)
    AlarmMonitor(AlarmsConfig()).check(watched)
    return found | {key: value for key, value in watched.items() if key not in WELL}


def test_our_names_and_the_table_are_the_same(documented):
    ours = documented(before="## verl's own")
    names = logged()
    assert [name for name in names if not any(pattern.fullmatch(name) for pattern in ours.values())] == []
    stale = [shown for shown, pattern in ours.items() if not any(map(pattern.fullmatch, names))]
    assert set(stale) == FROM_THE_TRAINER
