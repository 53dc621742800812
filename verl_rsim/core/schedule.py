"""Schedules the weights of both policies: the lambda of rSIM's objective, stage by stage.

The paper trains in two stages and weighs the policies by lambda and 1 - lambda. It does not say which stages: those
below are this project's choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_rsim.utils.errors import ConfigError

PRESETS = ("leader_first", "follower_first", "joint", "alternating")


@dataclass(frozen=True, slots=True)
class Stage:
    """Weighs both policies over a range of training steps.

    Attributes:
        until: the last training step of the stage, counted from 1.
        planner_weight, reasoner_weight: factors of the advantages, in [0, 1]; 0 skips that policy's update.
    """

    until: int
    planner_weight: float
    reasoner_weight: float

    @property
    def weights(self) -> dict[str, float]:
        """The weights by role."""
        return {"planner": self.planner_weight, "reasoner": self.reasoner_weight}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Holds the stages in order; the last one has no end."""

    stages: tuple[Stage, ...]

    def index(self, step: int) -> int:
        """Returns the index of the stage of a training step (from 1)."""
        for index, stage in enumerate(self.stages):
            if step <= stage.until:
                return index
        return len(self.stages) - 1

    def at(self, step: int) -> Stage:
        """Returns the stage of a training step (from 1)."""
        return self.stages[self.index(step)]

    def updates(self, role: str, steps: int) -> int:
        """Counts the updates of a policy in the first ``steps`` training steps.

        Args:
            role: "planner" or "reasoner"; any other name is a policy that plays both.
        """
        count = done = 0
        for stage in self.stages:
            until = steps if stage is self.stages[-1] else min(stage.until, steps)
            if stage.weights.get(role, max(stage.weights.values())):
                count += until - done
            done = until
        return count

    def check_trainable(self, frozen: frozenset[str]) -> None:
        """Refuses a stage in which only frozen policies have a weight.

        Raises:
            ConfigError: in some stage nothing would be trained.
        """
        for index, stage in enumerate(self.stages):
            if not any(weight > 0 and role not in frozen for role, weight in stage.weights.items()):
                raise ConfigError(
                    f"rsim.schedule[{index}]",
                    stage,
                    f"nothing is trained in this stage (frozen: {', '.join(sorted(frozen)) or 'none'}); "
                    "give a weight above 0 to a policy that is not frozen, or choose rsim.schedule=joint",
                )


def build_schedule(spec: str | Sequence[Mapping[str, Any]], weight: float, total_steps: int) -> Schedule:
    """Builds the schedule that a configuration describes.

    Args:
        spec: a preset's name, or a list of stages ``{until, planner_weight, reasoner_weight}``; ``until`` is a step
            number, or a fraction of ``total_steps`` when it is a float up to 1.0.
        weight: lambda, the planner's weight in the presets' joint stages; the reasoner gets 1 - lambda.
        total_steps: training steps of the run.

    Raises:
        ConfigError: unknown preset or key, weight outside [0, 1], or stages out of order.
    """
    _check_weight("rsim.lambda", weight)
    if isinstance(spec, str):
        return _preset(spec, float(weight), total_steps)
    if not spec or not isinstance(spec, list | tuple):
        raise ConfigError("rsim.schedule", spec, f"list at least one stage, or name one of {', '.join(PRESETS)}")
    stages: list[Stage] = []
    for index, entry in enumerate(spec):
        stage = _stage(f"rsim.schedule[{index}]", entry, total_steps)
        if stages and stage.until <= stages[-1].until:
            raise ConfigError(f"rsim.schedule[{index}].until", entry["until"], "must be later than the stage before it")
        stages.append(stage)
    return Schedule(tuple(stages))


def _preset(name: str, weight: float, total_steps: int) -> Schedule:
    half = max(1, total_steps // 2)
    joint = (weight, 1.0 - weight)
    match name:
        case "leader_first":
            return Schedule((Stage(half, 1.0, 0.0), Stage(total_steps, *joint)))
        case "follower_first":
            return Schedule((Stage(half, 0.0, 1.0), Stage(total_steps, *joint)))
        case "joint":
            return Schedule((Stage(total_steps, *joint),))
        case "alternating":
            turns = [(1.0, 0.0) if step % 2 else (0.0, 1.0) for step in range(1, max(2, total_steps) + 1)]
            return Schedule(tuple(Stage(step, *weights) for step, weights in enumerate(turns, start=1)))
    raise ConfigError("rsim.schedule", name, f"choose one of {', '.join(PRESETS)}, or give a list of stages")


def _stage(key: str, entry: Mapping[str, Any], total_steps: int) -> Stage:
    known = {"until", "planner_weight", "reasoner_weight"}
    if not isinstance(entry, Mapping):
        raise ConfigError(key, entry, f"must be a stage, a block of {', '.join(sorted(known))}")
    for name in entry:
        if name not in known:
            raise ConfigError(f"{key}.{name}", entry[name], f"unknown key; a stage has {', '.join(sorted(known))}")
    for name in sorted(known):
        if name not in entry:
            raise ConfigError(f"{key}.{name}", None, "is missing")
    until = entry["until"]
    if isinstance(until, float) and 0 < until <= 1:
        until = max(1, round(until * total_steps))
    if isinstance(until, bool) or not isinstance(until, int) or until < 1:
        raise ConfigError(f"{key}.until", entry["until"], "must be a step number from 1, or a fraction up to 1.0")
    for name in ("planner_weight", "reasoner_weight"):
        _check_weight(f"{key}.{name}", entry[name])
    return Stage(until, float(entry["planner_weight"]), float(entry["reasoner_weight"]))


def _check_weight(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(key, value, "must be a number in [0, 1]")
