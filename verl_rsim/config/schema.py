"""Validates the ``rsim`` block of the configuration, once, at start-up.

``verl_rsim/config/rsim.yaml`` describes each field beside its default. This module takes plain dictionaries and imports
neither verl nor OmegaConf.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.episode import Injection, Limits
from verl_rsim.core.rules import PLANNER_DECODINGS
from verl_rsim.reward.config import RewardConfig, ScoringConfig
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import fill
from verl_rsim.utils.validators import POSITIVE, check_at_least, check_choice

ROLES = ("planner", "reasoner")
PHASES = ("rollout", "log_probs", "update", "save", "weight_sync", "validation", "metrics")
"""Phases of a training step; ``rsim.watchdog.phase_seconds`` sets a timeout for each."""
WRONG_TRAINER_FIX = (
    "a trainer of one policy would run rSIM's rollout; set it to rsim, or name another config than verl_rsim's"
)
"""Fix for a configuration with rSIM's rollout and a ``trainer.v1.trainer_mode`` other than rsim."""


class AlarmAction(str, enum.Enum):
    """Lists the actions of an alarm."""

    OFF = "off"
    WARN = "warn"
    SAVE = "save"  # warn, and save a checkpoint at the end of the training step
    STOP = "stop"  # end the job before this training step can be saved


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """Configures one alarm.

    Attributes:
        action: a value of :class:`AlarmAction`, taken when the metric has crossed ``limit`` for ``steps`` steps.
        limit: threshold, in the unit of the alarm's metric.
        steps: training steps in a row.
    """

    action: str
    limit: float
    steps: int


@dataclass(frozen=True, slots=True)
class AlarmsConfig:
    """Holds the block ``rsim.alarms``; ``rsim.yaml`` describes each alarm and the unit of its limit."""

    strategy_entropy: AlarmConfig = AlarmConfig("warn", 0.3, 3)
    one_strategy: AlarmConfig = AlarmConfig("warn", 0.9, 3)
    early_termination: AlarmConfig = AlarmConfig("warn", 0.5, 3)
    zero_groups: AlarmConfig = AlarmConfig("warn", 0.9, 5)
    step_length: AlarmConfig = AlarmConfig("warn", 2.0, 2)
    ppo_kl: AlarmConfig = AlarmConfig("warn", 0.2, 1)
    not_finite: AlarmConfig = AlarmConfig("stop", 0.0, 1)

    def __post_init__(self):
        actions = [action.value for action in AlarmAction]
        for item in dataclasses.fields(self):
            key, alarm = f"rsim.alarms.{item.name}", getattr(self, item.name)
            if alarm.action not in actions:
                raise ConfigError(f"{key}.action", alarm.action, f"choose one of {', '.join(actions)}")
            if not math.isfinite(alarm.limit) or alarm.limit < 0:
                raise ConfigError(f"{key}.limit", alarm.limit, "must be a number >= 0")
            if alarm.steps < 1:
                raise ConfigError(f"{key}.steps", alarm.steps, "must be >= 1")


@dataclass(frozen=True, slots=True)
class WatchdogConfig:
    """Holds the block ``rsim.watchdog``: timeouts, in seconds."""

    poll_seconds: float = 2.0
    start_seconds: float = 1800.0
    stall_seconds: float = 3600.0
    phase_seconds: Mapping[str, float | None] = field(default_factory=lambda: dict.fromkeys(PHASES))

    def __post_init__(self):
        for name in ("poll_seconds", "start_seconds", "stall_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"rsim.watchdog.{name}", getattr(self, name), "must be above 0 seconds")
        for phase, seconds in self.phase_seconds.items():
            check_choice("rsim.watchdog.phase_seconds", phase, list(PHASES))
            if seconds is not None:
                POSITIVE.check(f"rsim.watchdog.phase_seconds.{phase}", seconds)


@dataclass(frozen=True, slots=True)
class PlannerPoolConfig:
    """Holds the block ``rsim.planner_pool``: GPUs for the planner alone, beside the reasoner's."""

    enable: bool = False
    n_gpus_per_node: int = 1
    nnodes: int = 1

    def __post_init__(self):
        for key in ("n_gpus_per_node", "nnodes"):
            check_at_least(f"rsim.planner_pool.{key}", getattr(self, key), 1)


@dataclass(frozen=True, slots=True)
class EpisodeLogConfig:
    """Holds the block ``rsim.episode_log``; see :mod:`verl_rsim.monitoring.episode_log`."""

    enabled: bool = True
    train_share: float = 0.1
    folder: str | None = None
    max_file_mb: int = 64

    def __post_init__(self):
        if not 0 <= self.train_share <= 1:
            raise ConfigError("rsim.episode_log.train_share", self.train_share, "must be a share in [0, 1]")
        check_at_least("rsim.episode_log.max_file_mb", self.max_file_mb, 1)


@dataclass(frozen=True, slots=True)
class RsimConfig:
    """Holds the validated ``rsim`` block."""

    train: tuple[str, ...] = ROLES
    shared_weights: bool = False
    schedule: Any = "leader_first"
    weight: float = field(default=0.5, metadata={"key": "lambda"})
    injection: str = "inline"
    planner_decoding: str = "constrained"
    max_turns: int = 6
    max_step_tokens: int = 128
    max_answer_tokens: int = 128
    step_delimiter: str = "\n\n"
    merge_system: bool = True
    reward: RewardConfig = field(default_factory=RewardConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    planner_adv_estimator: str | None = None
    planner_pool: PlannerPoolConfig = field(default_factory=PlannerPoolConfig)
    console: str = "verl"
    deterministic: bool = False
    seed: int = 0
    max_failed_share: float = 0.1
    max_bad_rows: int = 0
    sample_poll_seconds: float = 0.2
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    episode_log: EpisodeLogConfig = field(default_factory=EpisodeLogConfig)

    def __post_init__(self):
        for key in ("max_turns", "max_step_tokens", "max_answer_tokens"):
            check_at_least(f"rsim.{key}", getattr(self, key), 1)
        check_choice("rsim.injection", self.injection, [item.value for item in Injection])
        check_choice("rsim.planner_decoding", self.planner_decoding, list(PLANNER_DECODINGS))
        check_choice("rsim.console", self.console, ["verl", "summary"])
        if not self.step_delimiter:
            raise ConfigError("rsim.step_delimiter", self.step_delimiter, 'must not be empty, e.g. "\\n\\n"')
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError("rsim.max_failed_share", self.max_failed_share, "must be a share in [0, 1]")
        check_at_least("rsim.max_bad_rows", self.max_bad_rows, 0)
        for role in self.train:
            check_choice("rsim.train", role, list(ROLES))
        if not self.train:
            raise ConfigError("rsim.train", [], "both policies are frozen; name planner, reasoner or both")
        if self.shared_weights and self.frozen:
            raise ConfigError(
                "rsim.train", list(self.train), "rsim.shared_weights trains one model in both roles; name both"
            )
        if self.shared_weights and self.planner_pool.enable:
            raise ConfigError(
                "rsim.planner_pool.enable",
                True,
                "rsim.shared_weights has one model, on the GPUs of the trainer block; set it to false",
            )
        check_at_least("rsim.reward.max_repeats", self.reward.max_repeats, 0)
        if self.sample_poll_seconds <= 0:
            raise ConfigError("rsim.sample_poll_seconds", self.sample_poll_seconds, "must be above 0 seconds")

    @property
    def frozen(self) -> frozenset[str]:
        """Returns the roles that are not trained."""
        return frozenset(ROLES) - frozenset(self.train)

    def limits(self, planner_rollout: Mapping[str, Any], reasoner_rollout: Mapping[str, Any]) -> Limits:
        """Returns the dialogue's limits, with the token budgets of the rows from verl's two rollout blocks."""
        return Limits(
            max_turns=self.max_turns,
            max_step_tokens=self.max_step_tokens,
            max_answer_tokens=self.max_answer_tokens,
            planner_prompt=planner_rollout["prompt_length"],
            planner_response=planner_rollout["response_length"],
            reasoner_prompt=reasoner_rollout["prompt_length"],
            reasoner_response=reasoner_rollout["response_length"],
        )


def pool_of(config: Any, role: str) -> Any:
    """Returns the block whose ``n_gpus_per_node`` and ``nnodes`` are those that a role is trained and served on.

    Args:
        config: the whole configuration. In a stock verl job, which has no ``rsim`` block, ask for the reasoner.
        role: "planner", "reasoner" or "shared".
    """
    has_own_pool = role == "planner" and config.rsim.planner_pool.enable
    return config.rsim.planner_pool if has_own_pool else config.trainer


def gpus_of(config: Any, role: str) -> int:
    """Returns the number of GPUs (on a CPU: ranks) that a role is trained and served on, over all nodes."""
    pool = pool_of(config, role)
    return pool.n_gpus_per_node * pool.nnodes


def parse_config(block: Mapping[str, Any]) -> RsimConfig:
    """Returns the validated ``rsim`` block.

    Args:
        block: the block in plain types; absent keys take their defaults.

    Raises:
        ConfigError: unknown key, wrong type or value out of range.
    """
    return fill(RsimConfig(), "rsim", block)
