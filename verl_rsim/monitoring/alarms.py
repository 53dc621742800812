"""Alarms for the ways in which two-policy training collapses without a word. Pure Python.

They read a step's metrics after both updates. An alarm is on once its value has been beyond its limit for ``steps``
training steps in a row. Each role is counted by itself, and a step in which a role was not trained does not count for
it. The trainer then warns, saves or stops. The counts are saved with a checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean

from verl_rsim.config.schema import AlarmAction, AlarmConfig, AlarmsConfig
from verl_rsim.core.strategies import STRATEGIES, TERMINATION

POLICIES = ("planner", "reasoner", "shared")
"""What is trained: each role's policy, or the one of ``rsim.shared_weights``."""
HISTORY_STEPS, LEAST_HISTORY = 20, 5
"""The running mean of the step length is that of so many steps; no alarm before there are so many."""
NUMBERS_OF_AN_UPDATE = ("loss", "pg_loss", "kl_loss", "grad_norm")


Values = dict[str, float]
"""What an alarm measured, by whom it is about: a role, or "both"."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an alarm is measured and what to say of it.

    Attributes:
        values: reads a step's metrics; empty where they do not say.
        what: the value in words.
        remedy: what to look at or change.
        below: whether the alarm is for values below the limit instead of above.
    """

    values: Callable[[Mapping[str, float]], Values]
    what: str
    remedy: str
    below: bool = False


def _of_both(key: str, metrics: Mapping[str, float]) -> Values:
    return {"both": metrics[key]} if key in metrics else {}


def _of_trained(name: str, metrics: Mapping[str, float]) -> Values:
    """The magnitude of ``{role}/{name}`` of each role trained in this step."""
    trained = [role for role in POLICIES if metrics.get(f"{role}/weight", 0) > 0]
    return {role: abs(metrics[key]) for role in trained if (key := f"{role}/{name}") in metrics}


def _largest_share(metrics: Mapping[str, float]) -> Values:
    shares = [metrics[key] for strategy in STRATEGIES if (key := f"strategy/{strategy.name}") in metrics]
    return {"both": max(shares)} if shares else {}


def _not_finite(metrics: Mapping[str, float]) -> Values:
    found = {
        role: [metrics[key] for name in NUMBERS_OF_AN_UPDATE if (key := f"{role}/{name}") in metrics]
        for role in POLICIES
    }
    return {role: float(sum(not math.isfinite(v) for v in values)) for role, values in found.items() if values}


RULES: dict[str, Rule] = {
    "strategy_entropy": Rule(
        partial(_of_both, "strategy/entropy"),
        "the entropy of the strategies used (nats)",
        "Raise planner.actor.entropy_coeff or rsim.reward.diversity, or lower planner.actor.optim.lr.",
        below=True,
    ),
    "one_strategy": Rule(
        _largest_share,
        "the share of the commonest strategy",
        "Raise planner.actor.entropy_coeff, rsim.reward.diversity or rsim.reward.group_diversity.",
    ),
    "early_termination": Rule(
        partial(_of_both, f"strategy/{TERMINATION}/turn/1"),
        "the share of episodes in which the planner terminates at once",
        "Lower rsim.reward.termination, turn_cost or token_cost: ending pays more than reasoning does.",
    ),
    "zero_groups": Rule(
        partial(_of_trained, "zero_groups"),
        "the share of questions from which the role learns nothing",
        "The questions are too hard or too easy: change the data, or raise actor_rollout_ref.rollout.n.",
    ),
    "step_length": Rule(
        partial(_of_both, "rsim/step_tokens/growth"),
        f"the length of a step over the mean of the last {HISTORY_STEPS} steps",
        "Read some steps; lower rsim.max_step_tokens or the reasoner's learning rate, or raise rsim.reward.token_cost.",
    ),
    "ppo_kl": Rule(
        partial(_of_trained, "ppo_kl"),
        "how far the update moved the policy (ppo_kl)",
        "Lower the role's optim.lr or clip_ratio, or raise its ppo_mini_batch_size.",
    ),
    "not_finite": Rule(
        _not_finite,
        "the number of losses and gradient norms that are NaN or infinite",
        "Resume from the last checkpoint with a lower learning rate or optim.clip_grad, or compute in float32.",
    ),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alarm that is on.

    Attributes:
        alarm: its name in ``rsim.alarms``.
        about: a role, or "both".
        value: what was measured.
        config: its limits and action.
        fresh: it was not on in the step before.
    """

    alarm: str
    about: str
    value: float
    config: AlarmConfig
    fresh: bool

    def __str__(self) -> str:
        rule = RULES[self.alarm]
        beyond = f"{'below' if rule.below else 'above'} rsim.alarms.{self.alarm}.limit={self.config.limit:g}"
        steps = f" for {self.config.steps} steps" if self.config.steps > 1 else ""
        whose = "" if self.about == "both" else f" ({self.about})"
        return f"alarm {self.alarm}{whose}: {rule.what} is {self.value:.4g}, {beyond}{steps}. {rule.remedy}"


@dataclass(frozen=True, slots=True)
class AlarmState:
    """What a alarms remembers of the steps before, in plain types.

    Attributes:
        beyond: steps in a row beyond the limit, by "{alarm}/{whom it is about}".
        lengths: mean step lengths, in tokens, of the last steps.
    """

    beyond: Mapping[str, int] = field(default_factory=dict)
    lengths: tuple[float, ...] = ()


class AlarmMonitor:
    """Watches the metrics of one training step after the other."""

    def __init__(self, config: AlarmsConfig):
        alarms = {name: getattr(config, name) for name in RULES}
        self.alarms = {name: alarm for name, alarm in alarms.items() if alarm.action != AlarmAction.OFF.value}
        self._beyond: Counter[str] = Counter()
        self._lengths: deque[float] = deque(maxlen=HISTORY_STEPS)

    def state(self) -> AlarmState:
        """What :meth:`restore` takes."""
        return AlarmState(dict(self._beyond), tuple(self._lengths))

    def restore(self, state: AlarmState) -> None:
        """Go on counting where another alarms stopped: a job that is resumed often would else never raise an alarm."""
        self._beyond = Counter(state.beyond)
        self._lengths = deque(state.lengths, maxlen=HISTORY_STEPS)

    def check(self, metrics: dict[str, float]) -> list[Alert]:
        """The alarms that are on after a step.

        Args:
            metrics: the step's; gets ``alarm/{alarm}``, 1 while it is on, and ``rsim/step_tokens/growth``.
        """
        self._measure_growth(metrics)
        alerts = []
        for name, alarm in self.alarms.items():
            for about, value in RULES[name].values(metrics).items():
                beyond = value < alarm.limit if RULES[name].below else value > alarm.limit
                key = f"{name}/{about}"
                steps = self._beyond[key] = self._beyond[key] + 1 if beyond else 0
                if steps >= alarm.steps:
                    alerts.append(Alert(name, about, value, alarm, fresh=steps == alarm.steps))
        on = {alert.alarm for alert in alerts}
        metrics.update({f"alarm/{name}": float(name in on) for name in self.alarms})
        return alerts

    def _measure_growth(self, metrics: dict[str, float]) -> None:
        """The step length over its running mean, which stands still while it is beyond the limit."""
        length = metrics.get("rsim/step_tokens")
        if not length:
            return
        growth = length / fmean(self._lengths) if len(self._lengths) >= LEAST_HISTORY else 1.0
        metrics["rsim/step_tokens/growth"] = growth
        if "step_length" not in self.alarms or growth <= self.alarms["step_length"].limit:
            self._lengths.append(length)
