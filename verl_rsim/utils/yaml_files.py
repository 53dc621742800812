"""Reads YAML files that users write, and reports errors by the file's role and path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verl_rsim.utils.errors import ConfigError


def read_block(key: str, path: Path, wanted: str) -> dict[str, Any]:
    """Returns the mapping that a YAML file holds.

    Args:
        key: role of the file for the user, e.g. "matrix".
        wanted: the keys that the file must hold, as a phrase for the error message.

    Raises:
        ConfigError: the file does not exist, is not YAML, or holds no mapping.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        block = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ConfigError(key, str(path), f"cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(key, str(path), f"is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(block, dict):
        raise ConfigError(key, str(path), f"must hold the keys {wanted}")
    return dict(block)


def check_folder_name(key: str, name: object) -> None:
    """Raises ConfigError if a name given by the user cannot be the name of a folder."""
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(key, name, "a name becomes a folder: use letters, digits, dots, - and _")
