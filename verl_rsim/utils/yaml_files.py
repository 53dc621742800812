"""YAML files that users write: read whole, every key known, errors with the key's path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verl_rsim.utils.errors import ConfigError


def read_block(key: str, path: Path, wanted: str) -> dict[str, Any]:
    """The mapping that a file holds.

    Args:
        key: what the file is to the user, e.g. "matrix".
        wanted: its keys, in words.

    Raises:
        ConfigError: no such file, no YAML, or no mapping.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        block = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(key, str(path), f"cannot be read: {why}") from None
    except yaml.YAMLError as error:
        raise ConfigError(key, str(path), f"is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(block, dict):
        raise ConfigError(key, str(path), f"must hold the keys {wanted}")
    return dict(block)


def check_folder_name(key: str, name: Any) -> None:
    """Raise if a name that the user gave cannot be a folder's."""
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(key, name, "a name becomes a folder: use letters, digits, dots, - and _")
