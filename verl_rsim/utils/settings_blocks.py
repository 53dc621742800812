"""Turns blocks of settings (plain dictionaries) into dataclasses; rejects unknown keys and values of a wrong type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_origin, get_type_hints

from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.validators import INTEGER, NUMBER

Block = TypeVar("Block")


def fill(default: Block, key: str, values: Mapping[str, Any]) -> Block:
    """Returns a copy of a dataclass with some of its fields replaced, after checking their names and types.

    Args:
        default: an instance of the dataclass. Fields that are dataclasses take nested blocks. A field whose name is not
            its key in the configuration names the key: ``field(metadata={"key": "lambda"})``.
        key: path of the block in the configuration, for error messages, e.g. ``rsim.reward``.
        values: the block.

    Raises:
        ConfigError: a key is unknown or a value is of another type.
    """
    fields = {item.metadata.get("key", item.name): item.name for item in dataclasses.fields(default)}  # type: ignore[arg-type]
    types = get_type_hints(type(default))
    filled: dict[str, Any] = {}
    for written, value in values.items():
        path = f"{key}.{written}"
        if written not in fields:
            raise ConfigError(path, value, f"unknown key; known are {', '.join(sorted(fields))}")
        name = fields[written]
        current = getattr(default, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(path, value, "must be a block of settings")
            filled[name] = fill(current, path, value)
        else:
            filled[name] = typed_value(path, value, types[name])
    return dataclasses.replace(default, **filled)  # type: ignore[type-var]


def build(cls: type[Block], key: str, values: Any) -> Block:
    """Returns an instance of the dataclass ``cls``, which must check its values itself, from a block of settings.

    Args:
        key: path of the block in the configuration, for error messages; empty for a whole file.

    Raises:
        ConfigError: ``values`` is not a mapping, has an unknown key, or lacks a field that has no default.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    known = [item.name for item in fields]
    if not isinstance(values, dict):
        raise ConfigError(key, values, "must be a block of settings")
    for name in values:
        if name not in known:
            raise ConfigError(f"{key}.{name}".lstrip("."), values[name], f"unknown key; known are {', '.join(known)}")
    for item in fields:
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise ConfigError(f"{key}.{item.name}".lstrip("."), None, "is missing")
    return cls(**values)


def typed_value(key: str, value: Any, annotation: Any) -> Any:
    """Returns ``value`` converted to the type of a field: a list becomes a tuple, an integer a float.

    Args:
        key: path of the setting, for error messages.
        annotation: the field's type: ``int``, ``float``, ``str``, ``bool``, ``str | None``, a tuple, a mapping, or
            ``Any`` for a value that is checked elsewhere.

    Raises:
        ConfigError: the value is of another type.
    """
    if annotation is Any:
        return value
    if get_origin(annotation) in (Union, UnionType):  # only "str | None" is used
        if value is not None and not isinstance(value, str):
            raise ConfigError(key, value, "must be a string or null")
        return value
    container = get_origin(annotation)
    if container is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(key, value, "must be a list")
        return tuple(value)
    if container is not None and issubclass(container, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(key, value, "must be a block of settings")
        return dict(value)
    if annotation is int:
        INTEGER.check(key, value)
        return value
    if annotation is float:
        NUMBER.check(key, value)
        return float(value)
    if annotation is str and isinstance(value, bool):  # YAML 1.1 reads an unquoted on or off as a boolean
        return "on" if value else "off"
    if type(value) is not annotation:
        raise ConfigError(key, value, f"must be of type {annotation.__name__}")
    return value
