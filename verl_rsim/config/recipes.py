"""Finds and composes a job's configuration: a recipe by name, a YAML file of the user, or the defaults with overrides.

The recipe ``FOLDER/NAME`` is the file ``recipes/FOLDER/NAME.yaml``; ``FOLDER`` alone is short for ``FOLDER/FOLDER``.
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
"""Name of the config that adds rSIM to any verl command; a job consists of it and overrides."""
MODULE = "pkg://"
NOT_FOR_TRAINING = {"plug_in"}
"""Folders of recipes/ that hold files for other commands than train."""


def recipes() -> list[str]:
    """Returns the names of all training recipes, sorted."""
    found = []
    for folder in files(PACKAGE).iterdir():
        if folder.is_dir() and folder.name not in NOT_FOR_TRAINING:
            names = [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]
            found += [folder.name if name == folder.name else f"{folder.name}/{name}" for name in names]
    return sorted(found)


def locate(recipe: str) -> tuple[str, str]:
    """Returns where hydra finds a configuration.

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
    known = recipes()
    if recipe not in known:
        raise ConfigError("recipe", recipe, f"choose one of {', '.join(known)}; or name a .yaml file, or {DEFAULTS}")
    return f"{MODULE}{PACKAGE}.{folder}", config or folder


def compose_recipe(recipe: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the whole configuration of a job.

    Args:
        recipe: as for :func:`locate`.
        overrides: in hydra's grammar, e.g. ``rsim.lambda=0.3``.

    Raises:
        ConfigError: there is no such recipe or file.
        hydra.errors.HydraException: an override names an unknown key or cannot be parsed.
    """
    from hydra import compose, initialize_config_dir, initialize_config_module

    path, name = locate(recipe)
    initialize = initialize_config_module if path.startswith(MODULE) else initialize_config_dir
    with initialize(path.removeprefix(MODULE), version_base=None):
        return compose(name, overrides=list(overrides))
