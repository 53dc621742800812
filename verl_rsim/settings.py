"""The ``rsim`` block of the configuration, validated once, at start-up.

Each field's meaning stands beside its default in ``verl_rsim/config/rsim.yaml``. Knows nothing of verl or OmegaConf: it
takes plain dictionaries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.dialogue import Injection, Limits
from verl_rsim.errors import ConfigError
from verl_rsim.guard import GuardConfig
from verl_rsim.reward.answers import AnswerType
from verl_rsim.reward.sandbox import BACKENDS
from verl_rsim.value_kinds import INTEGER, NUMBER, POSITIVE

ROLES = ("planner", "reasoner")
PHASES = ("rollout", "log_probs", "update", "save", "weight_sync", "validation", "metrics")
"""Of a step, which the watchdog bounds."""
PLANNER_DECODINGS = ("constrained", "free")
"""What a planner may write: one of the nine labels, or anything."""


@dataclass(frozen=True, slots=True)
class TermConfig:
    """A term of the user's own in the planner's reward: a function by its dotted path, and its weight."""

    name: str
    path: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Weights of the planner's reward terms; see :mod:`verl_rsim.reward.planner_score`."""

    accuracy: float = 1.0
    termination: float = 0.1
    termination_if_right: bool = False
    diversity: float = 0.1
    unparsed: float = 0.1
    turn_cost: float = 0.0
    token_cost: float = 0.0
    group_diversity: float = 0.0
    max_repeats: int = 2
    terms: tuple[TermConfig, ...] = ()

    def __post_init__(self):
        for item in dataclasses.fields(self):
            if isinstance(item.default, float) and getattr(self, item.name) < 0:
                raise ConfigError(
                    f"rsim.reward.{item.name}", getattr(self, item.name), "must be >= 0: its sign is built in"
                )
        taken = {item.name for item in dataclasses.fields(self)} | {"reward"}
        object.__setattr__(self, "terms", tuple(_term(entry, taken) for entry in self.terms))


def _term(entry: Any, taken: set[str]) -> TermConfig:
    """An entry of ``rsim.reward.terms``; its name joins ``taken``."""
    key = "rsim.reward.terms"
    if isinstance(entry, TermConfig):
        return entry
    example = "give {name: brevity, path: my_package.rewards.brevity, weight: 0.1}"
    if not isinstance(entry, Mapping) or not {"name", "path"} <= set(entry) <= {"name", "path", "weight"}:
        raise ConfigError(key, entry, example)
    weight = _typed(f"{key}.weight", entry.get("weight", 1.0), 1.0)
    name, path = (_typed(f"{key}.{part}", entry[part], "") for part in ("name", "path"))
    if name in taken or not name.isidentifier():
        raise ConfigError(f"{key}.name", name, "must be a word that no other term has")
    taken.add(name)
    return TermConfig(name, path, weight)


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """How the reward managers ``rsim``, ``rsim_math`` and ``rsim_code`` score; see :mod:`verl_rsim.reward.manager`."""

    workers: int = 2
    math_seconds: float = 3.0
    tolerance: float = 0.01
    answer_types: Mapping[str, str] = field(default_factory=dict)
    partial_credit: bool = False
    sandbox: str = "auto"
    code_seconds: float = 10.0
    code_memory_mb: int = 1024

    def __post_init__(self):
        for key in ("workers", "code_memory_mb"):
            _at_least(f"rsim.scoring.{key}", getattr(self, key), 1)
        for key in ("math_seconds", "code_seconds"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"rsim.scoring.{key}", getattr(self, key), "must be above 0 seconds")
        if not 0 <= self.tolerance < 1:
            raise ConfigError("rsim.scoring.tolerance", self.tolerance, "must be a relative error in [0, 1)")
        _one_of("rsim.scoring.sandbox", self.sandbox, list(BACKENDS))
        for source, kind in self.answer_types.items():
            _one_of(f"rsim.scoring.answer_types.{source}", kind, [item.value for item in AnswerType])


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
            _one_of("rsim.watchdog.phase_seconds", phase, list(PHASES))
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
            _at_least(f"rsim.planner_pool.{key}", getattr(self, key), 1)


@dataclass(frozen=True, slots=True)
class EpisodeLogConfig:
    """Which interactions are kept, and where; see :mod:`verl_rsim.episode_log`."""

    enabled: bool = True
    train_share: float = 0.1
    folder: str | None = None
    max_file_mb: int = 64

    def __post_init__(self):
        if not 0 <= self.train_share <= 1:
            raise ConfigError("rsim.episode_log.train_share", self.train_share, "must be a share in [0, 1]")
        _at_least("rsim.episode_log.max_file_mb", self.max_file_mb, 1)


@dataclass(frozen=True, slots=True)
class RsimConfig:
    """The validated ``rsim`` block."""

    train: tuple[str, ...] = ROLES
    shared_weights: bool = False
    schedule: Any = "leader_first"
    weight: float = 0.5
    injection: str = "inline"
    planner_decoding: str = "constrained"
    max_turns: int = 6
    max_step_tokens: int = 128
    max_answer_tokens: int = 128
    step_delimiter: str = "\n\n"
    reward: RewardConfig = field(default_factory=RewardConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
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
            _at_least(f"rsim.{key}", getattr(self, key), 1)
        _one_of("rsim.injection", self.injection, [item.value for item in Injection])
        _one_of("rsim.planner_decoding", self.planner_decoding, list(PLANNER_DECODINGS))
        _one_of("rsim.console", self.console, ["verl", "summary"])
        if not self.step_delimiter:
            raise ConfigError("rsim.step_delimiter", self.step_delimiter, 'must not be empty, e.g. "\\n\\n"')
        if not 0 <= self.max_failed_share <= 1:
            raise ConfigError("rsim.max_failed_share", self.max_failed_share, "must be a share in [0, 1]")
        for role in self.train:
            _one_of("rsim.train", role, list(ROLES))
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
        _at_least("rsim.reward.max_repeats", self.reward.max_repeats, 0)
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
    values = dict(block)
    if "weight" in values:  # the field's name, lambda being a word of Python's
        raise ConfigError("rsim.weight", values["weight"], "unknown key; write rsim.lambda")
    if "lambda" in values:
        values["weight"] = values.pop("lambda")
    return _fill(RsimConfig(), "rsim", values)


def parse_scoring(block: Mapping[str, Any]) -> ScoringConfig:
    """Read and check an ``rsim.scoring`` block on its own, as plain verl jobs have it.

    Raises:
        ConfigError: unknown key, wrong type or value out of range.
    """
    return _fill(ScoringConfig(), "rsim.scoring", block)


def _fill(default: Any, key: str, values: Mapping[str, Any]) -> Any:
    """The dataclass ``default`` with ``values`` in place of its own, names and types checked against it."""
    fields = {item.name for item in dataclasses.fields(default)}
    filled = {}
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(sorted("lambda" if field == "weight" else field for field in fields))
            raise ConfigError(f"{key}.{name}", value, f"unknown key; known are {known}")
        current = getattr(default, name)
        shown = f"{key}.{'lambda' if name == 'weight' else name}"
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(shown, value, "must be a block of settings")
            filled[name] = _fill(current, shown, value)
        elif name == "schedule":
            filled[name] = value
        else:
            filled[name] = _typed(shown, value, current)
    return dataclasses.replace(default, **filled)


def _typed(key: str, value: Any, like: Any) -> Any:
    """``value`` as the type of ``like``; a list becomes a tuple and an integer a float where a float is meant."""
    if isinstance(like, tuple):
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(key, value, "must be a list")
        return tuple(value)
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(key, value, "must be a block of settings")
        return dict(value)
    if like is None:
        if value is not None and not isinstance(value, str):
            raise ConfigError(key, value, "must be a string or null")
        return value
    if type(like) is int:
        INTEGER.check(key, value)
    if isinstance(like, float):
        NUMBER.check(key, value)
        return float(value)
    if isinstance(like, str) and isinstance(value, bool):  # YAML reads a bare on or off as a truth value
        return "on" if value else "off"
    if type(value) is not type(like):
        raise ConfigError(key, value, f"must be of type {type(like).__name__}")
    return value


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(key, value, f"must be >= {least}")


def _one_of(key: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        raise ConfigError(key, value, f"choose one of {', '.join(choices)}")
