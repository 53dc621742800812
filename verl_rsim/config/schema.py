"""The ``rsim`` block of the configuration, validated once, at start-up.

Each field's meaning stands beside its default in ``verl_rsim/config/rsim.yaml``. Knows nothing of verl or OmegaConf: it
takes plain dictionaries.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.dialogue import Injection, Limits
from verl_rsim.reward.config import RewardConfig, ScoringConfig
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import fill
from verl_rsim.utils.validators import POSITIVE, check_at_least, check_choice

ROLES = ("planner", "reasoner")
PHASES = ("rollout", "log_probs", "update", "save", "weight_sync", "validation", "metrics")
"""Of a step, which the watchdog bounds."""
PLANNER_DECODINGS = ("constrained", "free")
"""What a planner may write: one of the nine labels, or anything."""
WRONG_TRAINER_FIX = (
    "a trainer of one policy would run rSIM's rollout; set it to rsim, or name another config than verl_rsim's"
)
"""What to do where ``trainer.v1.trainer_mode`` is not rsim but the rollout is."""


class AlarmAction(str, enum.Enum):
    """What an alarm does."""

    OFF = "off"
    WARN = "warn"
    SAVE = "save"  # warn, and save a checkpoint at the end of the step
    STOP = "stop"  # end the job before anything of the step is saved


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """``action`` follows when the value has been beyond ``limit`` for ``steps`` training steps in a row."""

    action: str
    limit: float
    steps: int


@dataclass(frozen=True, slots=True)
class AlarmsConfig:
    """The block ``rsim.alarms``; units and meanings stand in ``rsim.yaml``."""

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
    """Bounds on waiting, in seconds."""

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
    """GPUs of the planner's own, beside the reasoner's."""

    enable: bool = False
    n_gpus_per_node: int = 1
    nnodes: int = 1

    def __post_init__(self):
        for key in ("n_gpus_per_node", "nnodes"):
            check_at_least(f"rsim.planner_pool.{key}", getattr(self, key), 1)


@dataclass(frozen=True, slots=True)
class EpisodeLogConfig:
    """Which episodes are kept, and where; see :mod:`verl_rsim.monitoring.episode_log`."""

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
    """The validated ``rsim`` block."""

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
    reward: RewardConfig = field(default_factory=RewardConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    planner_adv_estimator: str | None = None
    planner_pool: PlannerPoolConfig = field(default_factory=PlannerPoolConfig)
    console: str = "verl"
    deterministic: bool = False
    seed: int = 0
    max_failed_share: float = 0.1
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
                "rsim.shared_weights has one model, on the GPUs of one; set it to false",
            )
        check_at_least("rsim.reward.max_repeats", self.reward.max_repeats, 0)
        if self.sample_poll_seconds <= 0:
            raise ConfigError("rsim.sample_poll_seconds", self.sample_poll_seconds, "must be above 0 seconds")

    @property
    def frozen(self) -> frozenset[str]:
        """The roles that are not trained."""
        return frozenset(ROLES) - frozenset(self.train)

    def limits(self, planner_rollout: Mapping[str, Any], reasoner_rollout: Mapping[str, Any]) -> Limits:
        """The dialogue's limits, with the row budgets of verl's two rollout blocks."""
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
    """The block with the ``n_gpus_per_node`` and ``nnodes`` that a role is trained and served on.

    Args:
        config: the whole configuration; a stock verl job's for its one model, the reasoner's role.
    """
    own = role == "planner" and config.rsim.planner_pool.enable
    return config.rsim.planner_pool if own else config.trainer


def gpus_of(config: Any, role: str) -> int:
    """How many GPUs (on a CPU: ranks) a role is trained and served on, over all nodes."""
    pool = pool_of(config, role)
    return pool.n_gpus_per_node * pool.nnodes


def parse_config(block: Mapping[str, Any]) -> RsimConfig:
    """Read and check an ``rsim`` block.

    Raises:
        ConfigError: unknown key, wrong type or value out of range.
    """
    return fill(RsimConfig(), "rsim", block)
