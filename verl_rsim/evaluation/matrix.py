"""The file that describes a transfer: planners x reasoners x datasets, and the cells that makes.

A cell is an evaluation in the folder ``REASONER/DATASET/PLANNER``; the controls of a reasoner on a dataset, in which no
planner takes part, are one cell, ``controls``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.core.controls import CONTROLS, parse_controls
from verl_rsim.evaluation.config import ModelConfig, Settings
from verl_rsim.evaluation.rules import Rules
from verl_rsim.reward.config import parse_scoring
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import build
from verl_rsim.utils.yaml_files import check_folder_name, read_block

CONTROL_CELL = "controls"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix as its file describes it; names are the user's."""

    planners: Mapping[str, ModelConfig]
    reasoners: Mapping[str, ModelConfig]
    datasets: Mapping[str, str]
    controls: tuple[str, ...] = CONTROLS[:1]
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Cell:
    """One evaluation of a matrix; ``planner`` is a planner's name, or None for the controls."""

    reasoner: str
    dataset: str
    planner: str | None

    @property
    def path(self) -> str:
        """Its folder below the matrix's."""
        return f"{self.reasoner}/{self.dataset}/{self.planner or CONTROL_CELL}"


def read_matrix(path: Path) -> Matrix:
    """Read a matrix file; see docs/evaluation.md.

    Raises:
        ConfigError: no such file, an unknown key, or a value that cannot be meant.
    """
    return parse_matrix(read_block("matrix", path, "planners, reasoners and datasets"))


def parse_matrix(block: Mapping[str, Any]) -> Matrix:
    """A matrix from what its file holds.

    Raises:
        ConfigError: an unknown key, or a value that cannot be meant.
    """
    values = dict(block)
    named = {key: _names(key, values.pop(key, None)) for key in ("planners", "reasoners", "datasets")}
    controls = values.pop("controls", [CONTROLS[0]])
    if isinstance(controls, str):
        controls = [controls]
    if not isinstance(controls, list):
        raise ConfigError("controls", controls, "must be all, none or a list, e.g. [alone, random]")
    rules = build(Rules, "rules", values.pop("rules", None) or {})
    scoring = parse_scoring(values.pop("scoring", None) or {})
    for name, source in named["datasets"].items():
        if not isinstance(source, str):
            raise ConfigError(f"datasets.{name}", source, "must be a .parquet file or the name of prepared data")
    return Matrix(
        planners={name: _model(f"planners.{name}", value) for name, value in named["planners"].items()},
        reasoners={name: _model(f"reasoners.{name}", value) for name, value in named["reasoners"].items()},
        datasets=named["datasets"],
        controls=parse_controls(str(name) for name in controls),
        settings=build(Settings, "", {**values, "rules": rules, "scoring": scoring}),
    )


def _names(key: str, block: Any) -> dict[str, Any]:
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


def cells(matrix: Matrix) -> list[Cell]:
    """All cells, those of a reasoner together, and of those the ones of a planner."""
    rows = [*([None] if matrix.controls else []), *matrix.planners]
    return [Cell(r, d, planner) for r in matrix.reasoners for planner in rows for d in matrix.datasets]
