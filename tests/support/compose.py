"""Composes configurations with hydra."""

from __future__ import annotations

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(module: str, name: str, *overrides: str) -> DictConfig:
    with initialize_config_module(module, version_base=None):
        return compose(name, overrides=list(overrides))
