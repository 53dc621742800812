from __future__ import annotations

import io

import pytest
from rich.console import Console

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.alarms import AlarmMonitor, AlarmsConfig
from verl_rsim.monitoring.console import WIDTH, StepConsole


def shown(data: dict, step: int = 3) -> str:
    out = io.StringIO()
    StepConsole(10, Console(file=out, width=WIDTH)).log(data, step)
    return out.getvalue()


@pytest.fixture
def step() -> dict:
    """A whole step's metrics: long names, large numbers, all strategies."""
    data = {"rsim/turns": 2.5, "rsim/turns/min": 1, "rsim/turns/max": 6, "rsim/step_tokens": 30.0, "rsim/stage": 1}
    data |= {"timing_s/step": 102.4, "timing_s/gen": 25.1, "timing_s/reasoner/old_log_prob": 8.1, "rsim/failed": 0}
    data |= {"rsim/stop/prompt_too_long": 0.25, "rsim/stop/budget": 0.0, "rsim/truncated": 0.25, "reasoner/acc": 0.125}
    for role in ("planner", "reasoner"):
        data |= {f"{role}/weight": 0.5, f"{role}/reward": 0.5, f"{role}/reward/std": 0.1, f"{role}/zero_groups": 0.25}
        data |= {f"{role}/perf/cpu_memory_used_gb": 18.25, f"{role}/perf/max_memory_allocated_gb": 70.5}
        data |= {f"{role}/grad_norm": 12345.678, f"{role}/entropy": 2.197, f"{role}/ppo_kl": -1e-6}
    for strategy in STRATEGIES:
        key = f"strategy/{strategy.name}"
        data |= {key: 1.0, f"{key}/turn/1": 1.0, f"{key}/win_rate": 1.0, f"{key}/lift": -1.0, f"{key}/obedience": 0.25}
    AlarmMonitor(AlarmsConfig()).check(data)
    return data


def test_a_step_fits_one_screen_and_says_what_happened(step):
    text = shown(step)
    assert len(text.splitlines()) <= 24
    assert "…" not in text
    for part in ("step 3 of 10 · 102.4 s · stage 1 · about 0:11:57 left", "18.2 GiB", "70.5 GiB", "12.5%",
                 "-1.00 +0.25", "deliberative thinking", "1.23e+04", "prompt_too_long", "/old_log_prob"):  # fmt: skip
        assert part in text
    assert "budget" not in text
    assert "GPU" not in shown(step | {f"{role}/perf/max_memory_allocated_gb": 0.0 for role in ("planner", "reasoner")})
    assert "left" not in shown(step, step=10)


def test_alarms_are_named(step):
    assert "no alarm" in shown(step | {"alarm/ppo_kl": 0.0})
    assert "ALARM ppo_kl, zero_groups" in shown(step | {"alarm/ppo_kl": 1.0, "alarm/zero_groups": 1.0})


def test_a_validation_alone_is_one_line():
    data = {"val-reasoner/acc": 0.5, "val-planner/reward": 0.25, "val-rsim/turns": 2.0, "val-strategy/entropy": 2.0}
    text = shown(data, step=0)
    assert text == "validation at step 0: accuracy 50.0%, planner's reward 0.250, turns 2.0, strategy entropy 2.00\n"
