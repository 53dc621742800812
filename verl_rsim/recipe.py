"""Recipes by name: ``FOLDER/NAME`` is ``NAME.yaml`` in a folder of ``recipes``; ``FOLDER`` is ``FOLDER/FOLDER``."""

from __future__ import annotations

from importlib.resources import files

from verl_rsim.errors import ConfigError

PACKAGE = "verl_rsim.recipes"


def recipes() -> list[str]:
    """The names of all recipes."""
    found = []
    for folder in files(PACKAGE).iterdir():
        if folder.is_dir():
            names = [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]
            found += [folder.name if name == folder.name else f"{folder.name}/{name}" for name in names]
    return sorted(found)


def locate(name: str) -> tuple[str, str]:
    """Where hydra finds a recipe.

    Returns:
        The module that holds it and the config's name in it.

    Raises:
        ConfigError: there is no such recipe.
    """
    folder, _, config = name.strip("/").partition("/")
    if name not in (known := recipes()):
        raise ConfigError("recipe", name, f"choose one of {', '.join(known)}")
    return f"{PACKAGE}.{folder}", config or folder
