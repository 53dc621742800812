"""Reads the file of a chain: one planner, one frozen reasoner, and the tasks that the planner learns in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.core.controls import CONTROLS
from verl_rsim.evaluation.matrix import CONTROL_CELL
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import build
from verl_rsim.utils.yaml_files import check_folder_name, read_block

BEFORE = "before"
"""Name of the planner's state before the first stage."""
DEFAULT_RECIPE = "continual_code"
SET_BY_CHAIN = {
    "data.train_files": "data",
    "data.val_files": "data",
    "planner.model.path": "planner",
    "actor_rollout_ref.model.path": "reasoner",
    "planner.model.lora_adapter_path": "planner: a model that the adapter was merged into",
    "rsim.train": "nothing: a chain freezes the reasoner",
    "trainer.total_training_steps": "steps",
    "trainer.total_epochs": "steps",
    "trainer.resume_mode": "nothing: stages resume by themselves",
    "trainer.default_local_dir": "--out",
    "trainer.experiment_name": "name",
}
"""Settings of a training job that the chain sets itself, each with the key of the chain's file to use instead."""


@dataclass(frozen=True, slots=True)
class ChainStage:
    """Describes a task and its training.

    Attributes:
        name: name of the task, and of the planner's state after it.
        data: name of prepared data, or a folder with train.parquet and test.parquet.
        steps: training steps.
        replay: share of the training rows that comes from earlier tasks, in [0, 1).
        recipe: name of a recipe, as for verl-rsim train; None: the chain's.
        overrides: hydra overrides of this stage, applied after the chain's.
    """

    name: str
    data: str
    steps: int
    replay: float = 0.0
    recipe: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """Describes a chain, as its file does.

    Attributes:
        planner: model that the first stage starts from: a Hugging Face folder or id, or a checkpoint global_step_N.
        reasoner: model that is frozen in every stage: a Hugging Face folder or id.
        stages: stages in the order in which they are trained.
        learned: tasks that the planner learned before the chain, names to data; replayed and measured like stages.
        datasets: datasets that are only evaluated, as in a transfer's file.
        recipe, overrides: recipe and hydra overrides of all stages.
        evaluation: additional keys of a transfer's file: samples, temperature, limit, controls, rules ...
        seed: seed of choosing and mixing the replayed rows.

    Raises:
        ConfigError: a value cannot be used, or two names collide.
    """

    planner: str
    reasoner: str
    stages: tuple[ChainStage, ...]
    learned: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)
    recipe: str = DEFAULT_RECIPE
    overrides: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        for key in ("planner", "reasoner", "recipe"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ConfigError(key, getattr(self, key), "must be text, e.g. a model's folder")
        if type(self.seed) is not int:
            raise ConfigError("seed", self.seed, "must be a whole number")
        if not self.stages:
            raise ConfigError("stages", [], "list at least one: {name: code, data: humaneval, steps: 10}")
        self._check_names()
        for index, stage in enumerate(self.stages):
            if stage.replay and not (self.learned or index):
                fix = "no task comes before this stage; list earlier tasks under learned, or leave replay out"
                raise ConfigError(f"stages.{stage.name}.replay", stage.replay, fix)
        for key in self.evaluation:
            if key in ("planners", "reasoners", "datasets"):
                fix = "the chain sets it; list additional datasets under the chain's own key datasets"
                raise ConfigError(f"evaluation.{key}", self.evaluation[key], fix)

    def _check_names(self) -> None:
        # All names become folders of one evaluation, beside those of the controls.
        taken: dict[str, str] = dict.fromkeys((BEFORE, CONTROL_CELL, *CONTROLS), "a reserved name")
        names = [("learned", name) for name in self.learned]
        names += [(f"stages[{index}].name", stage.name) for index, stage in enumerate(self.stages)]
        names += [("datasets", name) for name in self.datasets]
        for key, name in names:
            check_folder_name(key, name)
            if name in taken:
                raise ConfigError(key, name, f"is {taken[name]}; choose another name")
            taken[name] = f"the name of another task or dataset ({key.partition('[')[0]})"

    @property
    def tasks(self) -> dict[str, str]:
        """All tasks and their data, in the order in which they are learned."""
        return {**self.learned, **{stage.name: stage.data for stage in self.stages}}

    @property
    def states(self) -> tuple[str, ...]:
        """The planner's states: before the chain, and after each stage."""
        return (BEFORE, *(stage.name for stage in self.stages))

    def tasks_before(self, stage: ChainStage) -> dict[str, str]:
        """Returns the tasks that are learned before a stage, and their data."""
        names = list(self.tasks)
        return {name: self.tasks[name] for name in names[: names.index(stage.name)]}


def read_chain(path: Path, planner: str | None = None) -> Chain:
    """Reads a chain's file; see docs/continual.md.

    Args:
        path: a YAML file.
        planner: replaces the planner of the file.

    Raises:
        ConfigError: the file does not exist, has an unknown key, or has a value that cannot be used.
    """
    values = read_block("chain", path, "planner, reasoner and stages")
    if planner:
        values["planner"] = planner
    if values.get("planner") is None:
        fix = "name the model to train: in the file, or as --planner"
        raise ConfigError("planner", None, fix)
    stages = values.get("stages")
    if not isinstance(stages, list):
        raise ConfigError("stages", stages, "must be a list: [{name: code, data: humaneval, steps: 10}]")
    for key in ("learned", "datasets"):
        _check_data_names(key, values.get(key, {}))
    if not isinstance(values.get("evaluation", {}), dict):
        raise ConfigError("evaluation", values["evaluation"], "must be a block of settings")
    values["overrides"] = _parse_overrides("overrides", values.get("overrides", []))
    values["stages"] = tuple(_parse_stage(index, block) for index, block in enumerate(stages))
    return build(Chain, "", values)


def _check_data_names(key: str, block: Any) -> None:
    if not isinstance(block, dict):
        raise ConfigError(key, block, "must map names to data: {math: arithmetic}")
    for name, source in block.items():
        if not isinstance(source, str) or not source:
            raise ConfigError(f"{key}.{name}", source, "must be the name of prepared data, or a path")


def _parse_stage(index: int, block: Any) -> ChainStage:
    stage = build(ChainStage, f"stages[{index}]", block)
    key = f"stages.{stage.name}"
    if not isinstance(stage.data, str) or not stage.data:
        raise ConfigError(f"{key}.data", stage.data, "must be the name of prepared data, or a folder")
    if type(stage.steps) is not int or stage.steps < 1:
        raise ConfigError(f"{key}.steps", stage.steps, "must be a whole number >= 1")
    if isinstance(stage.replay, bool) or not isinstance(stage.replay, int | float) or not 0 <= stage.replay < 1:
        raise ConfigError(f"{key}.replay", stage.replay, "must be a share in [0, 1): 0.2 replays a fifth of the rows")
    if not (stage.recipe is None or isinstance(stage.recipe, str)):
        raise ConfigError(f"{key}.recipe", stage.recipe, "must be the name of a recipe")
    return dataclasses.replace(stage, overrides=_parse_overrides(f"{key}.overrides", stage.overrides))


def _parse_overrides(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and "=" in item for item in value):
        raise ConfigError(key, value, "must be a list of hydra overrides: [data.train_batch_size=4]")
    for item in value:
        name = item.partition("=")[0].lstrip("+~")
        if name in SET_BY_CHAIN:
            raise ConfigError(key, item, f"the chain sets {name}; use its key {SET_BY_CHAIN[name]}")
    return tuple(value)
