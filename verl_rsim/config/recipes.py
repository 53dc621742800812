"""Where a job's configuration is: a recipe by name, a file of the user's own, or verl's defaults and overrides alone.

A recipe ``FOLDER/NAME`` is ``NAME.yaml`` in a folder of ``recipes``; ``FOLDER`` is ``FOLDER/FOLDER``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from verl_rsim.utils.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = "verl_rsim.recipes"
DEFAULTS = "rsim_trainer"
"""The config that a verl command names to switch rSIM on; no recipe, but a job with its overrides."""
MODULE = "pkg://"
NO_TRAINING = {"plug_in"}
"""Folders of files for other commands."""


def recipes() -> list[str]:
    """The names of all recipes."""
    found = []
    for folder in files(PACKAGE).iterdir():
        if folder.is_dir() and folder.name not in NO_TRAINING:
            names = [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]
            found += [folder.name if name == folder.name else f"{folder.name}/{name}" for name in names]
    return sorted(found)


def locate(recipe: str) -> tuple[str, str]:
    """Where hydra finds a configuration.

    Args:
        recipe: a recipe's name, a .yaml file, or :data:`DEFAULTS`.

    Returns:
        Hydra's ``--config-path`` and ``--config-name``.

    Raises:
        ConfigError: there is no such recipe or file.
    """
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe).expanduser().absolute()
        if not path.is_file():
            raise ConfigError("recipe", recipe, "there is no such file")
        return str(path.parent), path.stem
    if recipe == DEFAULTS:
        return f"{MODULE}verl_rsim.config", recipe
    folder, _, config = recipe.strip("/").partition("/")
    if recipe not in (known := recipes()):
        raise ConfigError("recipe", recipe, f"choose one of {', '.join(known)}; or name a .yaml file, or {DEFAULTS}")
    return f"{MODULE}{PACKAGE}.{folder}", config or folder


def compose_recipe(recipe: str, overrides: Sequence[str]) -> DictConfig:
    """The whole configuration of a job.

    Raises:
        ConfigError: there is no such recipe or file.
        hydra.errors.HydraException: an override does not fit.
    """
    from hydra import compose, initialize_config_dir, initialize_config_module

    place, name = locate(recipe)
    initialize = initialize_config_module if place.startswith(MODULE) else initialize_config_dir
    with initialize(place.removeprefix(MODULE), version_base=None):
        return compose(name, overrides=list(overrides))
