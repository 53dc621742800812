"""Kinds of values that a setting can be of, and what to say of another. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from verl_rsim.utils.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: what it must be, in words, and whether it is."""

    words: str
    holds: Callable[[Any], bool]

    def check(self, key: str, value: Any) -> None:
        """Refuse another value.

        Raises:
            ConfigError: it is not of this kind.
        """
        if not self.holds(value):
            raise ConfigError(key, value, f"must be {self.words}")


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_integer(value: Any) -> bool:
    """Whether it is one, of 64 bits: what counts, indexes or seeds can be no longer."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
INTEGER = Kind("a whole number", _is_integer)
NATURAL = Kind("a whole number >= 0", lambda value: _is_integer(value) and value >= 0)
COUNT = Kind("a whole number >= 1", lambda value: _is_integer(value) and value >= 1)
COUNT_OR_NULL = Kind("a whole number >= 1, or null", lambda value: value is None or COUNT.holds(value))
NUMBER = Kind("a finite number", is_number)
NOT_NEGATIVE = Kind("a finite number >= 0", lambda value: is_number(value) and value >= 0)
POSITIVE = Kind("a finite number above 0", lambda value: is_number(value) and value > 0)
SHARE = Kind("a number above 0 and up to 1", lambda value: is_number(value) and 0 < value <= 1)
TEXT = Kind("a text", _is_text)
TEXTS = Kind(
    "a path, or a list of paths",
    lambda value: _is_text(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value))),
)


def check_at_least(key: str, value: float, least: float) -> None:
    """Raises ConfigError if a number is below its least value."""
    if value < least:
        raise ConfigError(key, value, f"must be >= {least}")


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError if a value is not one of the choices."""
    known = list(choices)
    if value not in known:
        raise ConfigError(key, value, f"choose one of {', '.join(known)}")
