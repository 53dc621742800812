"""Checks blocks of verl's configuration against the field names and types of verl's dataclasses.

verl fills its dataclasses without checking types, so a wrong type fails late or never.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Union

from hydra.utils import get_class

from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.validators import FLAG, INTEGER, NUMBER, ValueRule


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


SCALAR_RULES = {
    bool: FLAG,
    int: INTEGER,
    float: NUMBER,
    str: ValueRule("a string", _is_string),
}
TARGET = "_target_"


def check_types(key: str, block: Mapping[str, Any]) -> None:
    """Checks a block that names its dataclass in ``_target_``, and such blocks inside it; ignores other blocks.

    Args:
        key: path of the block in the configuration.
        block: its values, in plain types.

    Raises:
        ConfigError: a key is not a field of the dataclass, or a value has another type than its field.
    """
    target = get_class(block[TARGET]) if TARGET in block else None
    if target is None or not dataclasses.is_dataclass(target):
        return
    hints = typing.get_type_hints(target)
    known = {item.name for item in dataclasses.fields(target)} | {TARGET}
    for name, value in block.items():
        if name not in known:
            raise ConfigError(f"{key}.{name}", value, f"unknown key; verl's {target.__name__} has no such field")
        if name == TARGET:
            continue
        if isinstance(value, Mapping) and TARGET in value:
            check_types(f"{key}.{name}", value)
        else:
            _check_value(f"{key}.{name}", value, hints[name])


def _check_value(key: str, value: Any, hint: Any) -> None:
    """Checks a value against the type of its field, if that is a scalar, a union of scalars, or a dataclass."""
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    choices = typing.get_args(hint) if is_union else (hint,)
    # "???" is OmegaConf's mark of a missing value. verl's YAML files set fields of type str to null.
    if value == "???" or (value is None and {type(None), str} & {*choices}):
        return
    rules = [SCALAR_RULES[choice] for choice in choices if choice in SCALAR_RULES]
    others = [choice for choice in choices if choice not in SCALAR_RULES and choice is not type(None)]
    if rules and not others and not any(rule.accepts(value) for rule in rules):
        accepted = [rule.description for rule in rules]
        if type(None) in choices:
            accepted.append("null")
        raise ConfigError(key, value, f"must be {', or '.join(accepted)}")
    if dataclasses.is_dataclass(hint) and not isinstance(value, Mapping):
        raise ConfigError(key, value, "must be a block of settings; override its keys")
