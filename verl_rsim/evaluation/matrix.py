"""Reads the file that describes a transfer (planners, reasoners, datasets), and lists its cells.

A cell is an evaluation in the folder ``REASONER/DATASET/PLANNER``. Controls do not depend on a planner: those of a
reasoner on a dataset form one cell, ``controls``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.core.controls import CONTROLS, parse_controls
from verl_rsim.core.policy_description import PolicyDescription
from verl_rsim.core.rules import Rules
from verl_rsim.evaluation.config import EvaluationSettings, ModelConfig
from verl_rsim.evaluation.trained_rules import ResolvedRules, resolve_rules
from verl_rsim.reward.config import parse_scoring
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import build
from verl_rsim.utils.yaml_files import check_folder_name, read_block

CONTROL_CELL = "controls"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Holds the planners, reasoners and datasets of a transfer, by the user's names.

    Attributes:
        planners, reasoners: models by name.
        datasets: parquet files or names of prepared data, by name.
        controls: controls that every reasoner plays on every dataset.
        settings: sampling, rules and scoring of all cells.
        given_rules: the rules that the file gives; the others are those with which the planners were trained.
    """

    planners: Mapping[str, ModelConfig]
    reasoners: Mapping[str, ModelConfig]
    datasets: Mapping[str, str]
    controls: tuple[str, ...] = CONTROLS[:1]
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    given_rules: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """Identifies one evaluation of a matrix by names; ``planner`` is None for the cell of the controls."""

    reasoner: str
    dataset: str
    planner: str | None

    @property
    def path(self) -> str:
        """Folder of the cell, relative to that of the matrix."""
        return f"{self.reasoner}/{self.dataset}/{self.planner or CONTROL_CELL}"


def read_matrix(path: Path) -> Matrix:
    """Reads a matrix file, in the format of docs/evaluation.md.

    Raises:
        ConfigError: there is no such file, a key is unknown, or a value is invalid.
    """
    return parse_matrix(read_block("matrix", path, "planners, reasoners and datasets"))


def parse_matrix(block: Mapping[str, Any]) -> Matrix:
    """Builds a matrix from the content of its file.

    Raises:
        ConfigError: a key is unknown, or a value is invalid.
    """
    values = dict(block)
    planners, reasoners, datasets = (
        _named_block(key, values.pop(key, None)) for key in ("planners", "reasoners", "datasets")
    )
    controls = values.pop("controls", [CONTROLS[0]])
    if isinstance(controls, str):
        controls = [controls]
    if not isinstance(controls, list):
        raise ConfigError("controls", controls, "must be all, none or a list, e.g. [alone, random]")
    given_rules = values.pop("rules", None) or {}
    rules = build(Rules, "rules", given_rules)
    scoring = parse_scoring(values.pop("scoring", None) or {})
    for name, source in datasets.items():
        if not isinstance(source, str):
            raise ConfigError(f"datasets.{name}", source, "must be a .parquet file or the name of prepared data")
    return Matrix(
        planners={name: _model(f"planners.{name}", value) for name, value in planners.items()},
        reasoners={name: _model(f"reasoners.{name}", value) for name, value in reasoners.items()},
        datasets=datasets,
        controls=parse_controls(str(name) for name in controls),
        settings=build(EvaluationSettings, "", {**values, "rules": rules, "scoring": scoring}),
        given_rules=given_rules,
    )


def with_trained_rules(
    matrix: Matrix, planners: Mapping[str, PolicyDescription | None]
) -> tuple[Matrix, ResolvedRules]:
    """Returns the matrix with the rules of its planners, where its file gives no others, and those rules.

    Args:
        matrix: as its file describes it.
        planners: how the planners were trained, by name.

    Raises:
        ConfigError: the planners were trained with different rules, and the file gives none.
    """
    resolved = resolve_rules(planners, matrix.given_rules)
    changed = dataclasses.replace(
        matrix,
        planners={name: model.with_rules(resolved.trained, "planner") for name, model in matrix.planners.items()},
        reasoners={name: model.with_rules(resolved.trained, "reasoner") for name, model in matrix.reasoners.items()},
        settings=dataclasses.replace(matrix.settings, rules=resolved.rules),
    )
    return changed, resolved


def _named_block(key: str, block: Any) -> dict[str, Any]:
    if not isinstance(block, dict) or not block:
        raise ConfigError(key, block, f"must map names to {'files' if key == 'datasets' else 'models'}")
    for name in block:
        check_folder_name(key, name)
        if key == "planners" and name in (CONTROL_CELL, *CONTROLS):
            raise ConfigError(key, name, "is the name of a control; choose another")
    return block


def _model(key: str, value: Any) -> ModelConfig:
    if isinstance(value, str):
        return ModelConfig(value)
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise ConfigError(key, value, "must be a path, id or URL, or a block with the key path")
    return build(ModelConfig, key, value)


def cells(matrix: Matrix) -> list[MatrixCell]:
    """Returns all cells, grouped by reasoner and then by planner, so that each model is loaded once."""
    planners: list[str | None] = [None] if matrix.controls else []
    planners += matrix.planners
    listed = []
    for reasoner in matrix.reasoners:
        for planner in planners:
            listed += [MatrixCell(reasoner, dataset, planner) for dataset in matrix.datasets]
    return listed
