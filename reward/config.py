"""Defines and validates the settings of the rewards: the blocks ``rsim.reward`` and ``rsim.scoring``.

Each field is described beside its default in ``verl_rsim/config/rsim.yaml``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.sandbox.create import BACKENDS
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import fill, typed_value
from verl_rsim.utils.validators import check_at_least, check_choice


@dataclass(frozen=True, slots=True)
class TermConfig:
    """Custom term of the planner's reward: name, dotted path of its function, and weight."""

    name: str
    path: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Weights of the planner's reward terms; see :mod:`verl_rsim.reward.planner_reward`."""

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
    """Parses an entry of ``rsim.reward.terms`` and adds its name to ``taken``."""
    key = "rsim.reward.terms"
    if isinstance(entry, TermConfig):
        return entry
    example = "give {name: brevity, path: my_package.rewards.brevity, weight: 0.1}"
    if not isinstance(entry, Mapping) or not {"name", "path"} <= set(entry) <= {"name", "path", "weight"}:
        raise ConfigError(key, entry, example)
    weight = typed_value(f"{key}.weight", entry.get("weight", 1.0), float)
    name, path = (typed_value(f"{key}.{part}", entry[part], str) for part in ("name", "path"))
    if name in taken or not name.isidentifier():
        raise ConfigError(f"{key}.name", name, "must be a word that no other term has")
    taken.add(name)
    return TermConfig(name, path, weight)


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """Settings of the reward managers ``rsim``, ``rsim_math``, ``rsim_code``; see :mod:`verl_rsim.reward.manager`."""

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
            check_at_least(f"rsim.scoring.{key}", getattr(self, key), 1)
        for key in ("math_seconds", "code_seconds"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"rsim.scoring.{key}", getattr(self, key), "must be above 0 seconds")
        if not 0 <= self.tolerance < 1:
            raise ConfigError("rsim.scoring.tolerance", self.tolerance, "must be a relative error in [0, 1)")
        check_choice("rsim.scoring.sandbox", self.sandbox, BACKENDS)
        for source, kind in self.answer_types.items():
            check_choice(f"rsim.scoring.answer_types.{source}", kind, [item.value for item in AnswerType])


def parse_scoring(block: Mapping[str, Any]) -> ScoringConfig:
    """Parses and checks an ``rsim.scoring`` block on its own, as plain verl jobs have it.

    Raises:
        ConfigError: a key is unknown, or a value is of the wrong type or out of range.
    """
    return fill(ScoringConfig(), "rsim.scoring", block)
