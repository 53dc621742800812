"""Records in a checkpoint how its policies were trained, so that an export can say it without the configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_rsim.config.schema import RsimConfig
from verl_rsim.core.policy_description import POLICY_FILE, ROLES, TRAINED_BOUNDS, TrainedRules, read_description
from verl_rsim.core.rules import Rules
from verl_rsim.utils.artifact_folders import digest
from verl_rsim.utils.environment import versions
from verl_rsim.utils.errors import ConfigError

HASHED_BYTES = 1 << 30
"""Size up to which a data file is hashed; hashing a larger one would delay every start by seconds."""
RULE_SETTINGS = {rule: "step_delimiter" if rule == "delimiter" else rule for rule in TRAINED_BOUNDS}
"""For each rule that a policy is trained with, the setting in ``rsim`` that holds it."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """Identifies a data file without telling where it lies on this machine.

    Attributes:
        name: name of the file and of its folder.
        bytes: its size; None if it is not on this machine.
        sha256: its hash; None if it is larger than :data:`HASHED_BYTES`.
    """

    name: str
    bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Names the model from which a role was trained, or that played it untrained.

    Attributes:
        name: id at the hub, or the name of the folder.
        hub_id: id at the hub, if it is known.
        license: its licence, if it is known.
    """

    name: str
    hub_id: str | None
    license: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """Says how a job trains its policies.

    Attributes:
        rules: rules of play, as :meth:`TrainedRules.as_block` writes them.
        trained: roles that learn.
        shared_weights: one policy plays both roles.
        base_models: the model that each role began with.
        total_steps: training steps of the whole job.
        batch_size: questions of a training step.
        episodes: episodes of a question.
        estimators: advantage estimator of each role.
        schedule, planner_weight: the settings ``rsim.schedule`` and ``rsim.lambda``.
        reward: weights of the planner's reward.
        train_data, validation_data: data files.
        versions: versions of the installed packages.
    """

    rules: Mapping[str, Any]
    trained: tuple[str, ...]
    shared_weights: bool
    base_models: Mapping[str, BaseModel]
    total_steps: int
    batch_size: int
    episodes: int
    estimators: Mapping[str, str]
    schedule: Any
    planner_weight: float
    reward: Mapping[str, Any]
    train_data: tuple[DataFile, ...]
    validation_data: tuple[DataFile, ...]
    versions: Mapping[str, str]


def training_record(
    config: DictConfig, rsim: RsimConfig, models: Mapping[str, str], total_steps: int
) -> TrainingRecord:
    """Returns the record of a job.

    Args:
        config: the whole configuration; ``actor_rollout_ref`` is the reasoner's block.
        rsim: its validated ``rsim`` block.
        models: path or id of the model that each role begins with.
        total_steps: training steps of the whole job.
    """
    common = str(config.algorithm.adv_estimator)
    return TrainingRecord(
        rules=trained_rules(config, rsim).as_block(),
        trained=tuple(rsim.train),
        shared_weights=rsim.shared_weights,
        base_models={role: base_model(model) for role, model in models.items()},
        total_steps=total_steps,
        batch_size=config.data.train_batch_size,
        episodes=config.actor_rollout_ref.rollout.n,
        estimators={"planner": rsim.planner_adv_estimator or common, "reasoner": common},
        schedule=rsim.schedule,
        planner_weight=rsim.weight,
        reward=dataclasses.asdict(rsim.reward),
        train_data=_data_files(config.data.train_files),
        validation_data=_data_files(config.data.val_files),
        versions=versions(),
    )


def trained_rules(config: DictConfig, rsim: RsimConfig) -> TrainedRules:
    """Returns the rules of play of a configuration."""
    block = config.data.get("apply_chat_template_kwargs")
    template: Any = OmegaConf.to_container(block, resolve=True) if block else {}
    rules = Rules(**{rule: getattr(rsim, setting) for rule, setting in RULE_SETTINGS.items()})
    return TrainedRules(rules, rsim.merge_system, {role: dict(template) for role in ROLES})


def base_model(model: str) -> BaseModel:
    """Returns the names of a model without telling where it lies on this machine.

    Args:
        model: its folder, or its id at the hub.
    """
    folder = Path(model)
    if not folder.is_dir():
        return BaseModel(model, model, None)
    license_name = card_license(folder / "README.md")
    for part in folder.parts:
        if part.startswith("models--"):  # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
            hub_id = part.removeprefix("models--").replace("--", "/")
            return BaseModel(hub_id, hub_id, license_name)
    if (folder / POLICY_FILE).is_file():  # an export that is trained on: its own base is the base
        try:
            earlier = read_description(folder / POLICY_FILE, "planner", model)
        except ConfigError:  # the file only names the base here; the weights can be trained without it
            return BaseModel(folder.name, None, license_name)
        return BaseModel(earlier.base_model, earlier.hub_id, license_name)
    return BaseModel(folder.name, None, license_name)


def card_license(card: Path | None) -> str | None:
    """Returns the licence that a model card names, or None."""
    import yaml  # type: ignore[import-untyped]
    from huggingface_hub import metadata_load

    try:
        metadata = metadata_load(card) if card else None
    except (OSError, ValueError, yaml.YAMLError):  # no card, or one with damaged metadata
        return None
    license_name = (metadata or {}).get("license")
    return license_name if isinstance(license_name, str) else None


def _data_files(files: str | Sequence[str] | None) -> tuple[DataFile, ...]:
    """Returns the files of ``data.train_files`` or ``data.val_files``, which is a path or a list of paths."""
    paths = [files] if isinstance(files, str) else list(files or ())
    return tuple(_data_file(Path(path).expanduser()) for path in paths)


def _data_file(path: Path) -> DataFile:
    name = "/".join(path.parts[-2:])
    if not path.is_file():  # a remote path, which verl copies
        return DataFile(name, None, None)
    size = path.stat().st_size
    return DataFile(name, size, digest(path) if size <= HASHED_BYTES else None)


def plain_numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Returns the finite numbers among metrics whose name begins with ``prefix``, which is removed."""
    numbers = {}
    for key, value in metrics.items():
        # NumPy's scalars are numbers too, but JSON takes only Python's own.
        if key.startswith(prefix) and isinstance(value, Real) and math.isfinite(value):
            numbers[key.removeprefix(prefix)] = int(value) if isinstance(value, Integral) else float(value)
    return numbers
