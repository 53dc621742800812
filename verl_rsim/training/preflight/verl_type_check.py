"""Whether a block of verl's configuration has the names and types of verl's own dataclass, which verl finds out late or
never: it fills its dataclasses without looking at types.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Union

from hydra.utils import get_class

from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.validators import FLAG, INTEGER, NUMBER, Kind

SCALARS = {
    bool: FLAG,
    int: INTEGER,
    float: NUMBER,
    str: Kind("a text", lambda value: isinstance(value, str)),
}
TARGET = "_target_"


def check_types(key: str, block: Mapping[str, Any]) -> None:
    """Check a block that names its dataclass in ``_target_``, and the blocks in it; others are left alone.

    Args:
        key: where it stands.
        block: its values, in plain types.

    Raises:
        ConfigError: a name that the dataclass does not have, or a value of another type than its field's.
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
    """Check a value where the field's type is a scalar's, null where the field may be; leave the others alone."""
    union = typing.get_origin(hint) in (Union, types.UnionType)
    choices = typing.get_args(hint) if union else (hint,)
    if value == "???" or (value is None and {type(None), str} & {*choices}):  # verl's own yaml has null for texts
        return
    kinds = [SCALARS[choice] for choice in choices if choice in SCALARS]
    others = [choice for choice in choices if choice not in SCALARS and choice is not type(None)]
    if kinds and not others and not any(kind.holds(value) for kind in kinds):
        null = ["null"] if type(None) in choices else []
        raise ConfigError(key, value, f"must be {', or '.join([kind.words for kind in kinds] + null)}")
    if dataclasses.is_dataclass(hint) and not isinstance(value, Mapping):
        raise ConfigError(key, value, "must be a block of settings; override its keys")
