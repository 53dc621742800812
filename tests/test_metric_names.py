"""What is logged is documented, and what is documented is logged."""

from __future__ import annotations

from test_guard import WELL
from test_metrics import BATCH, INFO

from verl_rsim.guard import Guard, GuardConfig
from verl_rsim.metrics import group_metrics, interaction_metrics, reward_metrics
from verl_rsim.strategy_metrics import strategy_metrics

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
    found = interaction_metrics(BATCH) | strategy_metrics(BATCH, [1.0, 0.0, 1.0]) | reward_metrics([info])
    found |= group_metrics(["a_0_1"], [info])
    watched = dict(WELL)
    Guard(GuardConfig()).check(watched)
    return found | {key: value for key, value in watched.items() if key not in WELL}


def test_our_names_and_the_table_are_the_same(documented):
    ours = documented(before="## verl's own")
    names = logged()
    assert [name for name in names if not any(pattern.fullmatch(name) for pattern in ours.values())] == []
    stale = [shown for shown, pattern in ours.items() if not any(map(pattern.fullmatch, names))]
    assert set(stale) == FROM_THE_TRAINER
