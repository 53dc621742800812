"""Raises alarms for the silent ways in which training two policies collapses. Pure Python.

The monitor reads the metrics of a training step after both updates. An alarm is on once its value has been beyond its
limit for ``steps`` training steps in a row. Each role is counted separately, and training steps that do not update a
role do not count for it. The trainer then warns, saves a checkpoint or stops the job. A checkpoint holds the counts.
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
"""Names of the trained policies: one for each role, or the single one of ``rsim.shared_weights``."""
HISTORY_STEPS = 20
"""Training steps in the running mean of the step length."""
MIN_HISTORY_STEPS = 5
"""Training steps before the running mean is used; until then the step length raises no alarm."""
UPDATE_METRICS = ("loss", "pg_loss", "kl_loss", "grad_norm")
"""Metrics of an update that must be finite."""


Values = dict[str, float]
"""Measured values, by the subject of the measurement: a policy, or "both"."""


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """Defines how an alarm is measured and described.

    Attributes:
        measure: Returns the values from a training step's metrics; empty if the metrics do not define them.
        description: The value in words.
        remedy: Advice on what to look at or change.
        below: True if the alarm is for values below the limit instead of above it.
    """

    measure: Callable[[Mapping[str, float]], Values]
    description: str
    remedy: str
    below: bool = False


def _measure_both(key: str, metrics: Mapping[str, float]) -> Values:
    """Returns a metric that describes both roles together."""
    return {"both": metrics[key]} if key in metrics else {}


def _measure_trained(name: str, metrics: Mapping[str, float]) -> Values:
    """Returns the magnitude of ``{policy}/{name}`` for each policy that this training step updated."""
    values = {}
    for policy in POLICIES:
        key = f"{policy}/{name}"
        if metrics.get(f"{policy}/weight", 0) > 0 and key in metrics:
            values[policy] = abs(metrics[key])  # ppo_kl is an estimate and may be negative
    return values


def _measure_largest_share(metrics: Mapping[str, float]) -> Values:
    """Returns the share of the most frequent strategy."""
    keys = [f"strategy/{strategy.name}" for strategy in STRATEGIES]
    shares = [metrics[key] for key in keys if key in metrics]
    return {"both": max(shares)} if shares else {}


def _count_non_finite(metrics: Mapping[str, float]) -> Values:
    """Returns how many of a policy's :data:`UPDATE_METRICS` are NaN or infinite."""
    values = {}
    for policy in POLICIES:
        keys = [f"{policy}/{name}" for name in UPDATE_METRICS]
        logged = [metrics[key] for key in keys if key in metrics]
        if logged:
            values[policy] = float(sum(not math.isfinite(value) for value in logged))
    return values


RULES: dict[str, AlarmRule] = {
    "strategy_entropy": AlarmRule(
        partial(_measure_both, "strategy/entropy"),
        "the entropy of the strategies used (nats)",
        "Raise planner.actor.entropy_coeff or rsim.reward.diversity, or lower planner.actor.optim.lr.",
        below=True,
    ),
    "one_strategy": AlarmRule(
        _measure_largest_share,
        "the share of the commonest strategy",
        "Raise planner.actor.entropy_coeff, rsim.reward.diversity or rsim.reward.group_diversity.",
    ),
    "early_termination": AlarmRule(
        partial(_measure_both, f"strategy/{TERMINATION}/turn/1"),
        "the share of episodes in which the planner terminates at once",
        "Lower rsim.reward.termination, turn_cost or token_cost: ending pays more than reasoning does.",
    ),
    "zero_groups": AlarmRule(
        partial(_measure_trained, "zero_groups"),
        "the share of questions from which the role learns nothing",
        "The questions are too hard or too easy: change the data, or raise actor_rollout_ref.rollout.n.",
    ),
    "step_length": AlarmRule(
        partial(_measure_both, "rsim/step_tokens/growth"),
        f"the length of a step over the mean of the last {HISTORY_STEPS} training steps",
        "Read some steps; lower rsim.max_step_tokens or the reasoner's learning rate, or raise rsim.reward.token_cost.",
    ),
    "ppo_kl": AlarmRule(
        partial(_measure_trained, "ppo_kl"),
        "how far the update moved the policy (ppo_kl)",
        "Lower the role's optim.lr or clip_ratio, or raise its ppo_mini_batch_size.",
    ),
    "not_finite": AlarmRule(
        _count_non_finite,
        "the number of losses and gradient norms that are NaN or infinite",
        "Resume from the last checkpoint with a lower learning rate or optim.clip_grad, or compute in float32.",
    ),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """Describes an alarm that is on.

    Attributes:
        alarm: Name of the alarm in ``rsim.alarms``.
        subject: The policy that it is about, or "both".
        value: The measured value.
        config: Limit, steps and action of the alarm.
        is_new: True if the alarm was off in the training step before.
    """

    alarm: str
    subject: str
    value: float
    config: AlarmConfig
    is_new: bool

    def __str__(self) -> str:
        rule = RULES[self.alarm]
        side = "below" if rule.below else "above"
        limit = f"{side} rsim.alarms.{self.alarm}.limit={self.config.limit:g}"
        steps = f" for {self.config.steps} training steps" if self.config.steps > 1 else ""
        subject = "" if self.subject == "both" else f" ({self.subject})"
        return f"alarm {self.alarm}{subject}: {rule.description} is {self.value:.4g}, {limit}{steps}. {rule.remedy}"


@dataclass(frozen=True, slots=True)
class AlarmState:
    """Holds what an alarm monitor carries from one training step to the next, in plain types.

    Attributes:
        beyond: Training steps in a row beyond the limit, by ``"{alarm}/{subject}"``.
        lengths: Mean step lengths, in tokens, of the last training steps.
    """

    beyond: Mapping[str, int] = field(default_factory=dict)
    lengths: tuple[float, ...] = ()


class AlarmMonitor:
    """Checks the metrics of one training step after the other against the alarms that are not off."""

    def __init__(self, config: AlarmsConfig):
        alarms = {name: getattr(config, name) for name in RULES}
        self.alarms = {name: alarm for name, alarm in alarms.items() if alarm.action != AlarmAction.OFF.value}
        self._steps_beyond: Counter[str] = Counter()
        self._lengths: deque[float] = deque(maxlen=HISTORY_STEPS)

    def state(self) -> AlarmState:
        """Returns the state that :meth:`restore` takes."""
        return AlarmState(dict(self._steps_beyond), tuple(self._lengths))

    def restore(self, state: AlarmState) -> None:
        """Continues the counts of an earlier monitor.

        Without this, a job that is resumed more often than an alarm's ``steps`` would never raise that alarm.
        """
        self._steps_beyond = Counter(state.beyond)
        self._lengths = deque(state.lengths, maxlen=HISTORY_STEPS)

    def check(self, metrics: dict[str, float]) -> list[Alert]:
        """Returns the alarms that are on after a training step.

        Args:
            metrics: Metrics of the training step. Adds ``alarm/{alarm}``, which is 1 while the alarm is on and 0
                otherwise, and ``rsim/step_tokens/growth``.
        """
        self._add_length_growth(metrics)
        alerts = []
        for name, config in self.alarms.items():
            rule = RULES[name]
            for subject, value in rule.measure(metrics).items():
                beyond = value < config.limit if rule.below else value > config.limit
                steps = self._count_beyond(f"{name}/{subject}", beyond)
                if steps >= config.steps:
                    alerts.append(Alert(name, subject, value, config, is_new=steps == config.steps))
        on = {alert.alarm for alert in alerts}
        metrics.update({f"alarm/{name}": float(name in on) for name in self.alarms})
        return alerts

    def _count_beyond(self, key: str, beyond: bool) -> int:
        """Updates and returns the number of training steps in a row beyond the limit."""
        self._steps_beyond[key] = self._steps_beyond[key] + 1 if beyond else 0
        return self._steps_beyond[key]

    def _add_length_growth(self, metrics: dict[str, float]) -> None:
        """Adds the ratio of the step length to its running mean to the metrics."""
        length = metrics.get("rsim/step_tokens")
        if not length:
            return
        growth = length / fmean(self._lengths) if len(self._lengths) >= MIN_HISTORY_STEPS else 1.0
        metrics["rsim/step_tokens/growth"] = growth
        # Lengths beyond the limit stay out of the mean. Otherwise it would follow them and switch the alarm off.
        if "step_length" not in self.alarms or growth <= self.alarms["step_length"].limit:
            self._lengths.append(length)
