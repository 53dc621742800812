"""Where the configuration of a job is found: a recipe of this package by name, or a file of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verl_rsim.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = "pkg://"


def locate(recipe: str) -> tuple[str, str]:
    """Hydra's ``--config-path`` and ``--config-name``.

    Args:
        recipe: a folder of ``verl_rsim/recipes``; ``rsim_trainer``, which is verl's defaults and the overrides alone;
            or a .yaml file.

    Raises:
        ConfigError: there is no such file.
    """
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe).expanduser().absolute()
        if not path.is_file():
            raise ConfigError("recipe", recipe, "there is no such file; name one, or a folder of verl_rsim/recipes")
        return str(path.parent), path.stem
    if recipe == "rsim_trainer":
        return f"{PACKAGE}verl_rsim.config", recipe
    return f"{PACKAGE}verl_rsim.recipes.{recipe}", recipe


def compose_recipe(recipe: str, overrides: Sequence[str]) -> DictConfig:
    """The whole configuration of a job.

    Raises:
        ConfigError, hydra.errors.HydraException: there is no such recipe or key.
    """
    from hydra import compose, initialize_config_dir, initialize_config_module

    place, name = locate(recipe)
    module = place.removeprefix(PACKAGE)
    found = initialize_config_module if module != place else initialize_config_dir
    with found(module, version_base=None):
        return compose(name, overrides=list(overrides))
