"""Defines the rules that values of settings must follow, and the errors for values that break them. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from verl_rsim.utils.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ValueRule:
    """Accepts or rejects a value of a setting.

    Attributes:
        description: the accepted values, as in "must be ...".
        accepts: returns True for an accepted value; takes a value of any type.
    """

    description: str
    accepts: Callable[[Any], bool]

    def check(self, key: str, value: Any) -> None:
        """Raises an error for a value that the rule does not accept.

        Args:
            key: dotted path of the setting, for the message.

        Raises:
            ConfigError: the value is not accepted.
        """
        if not self.accepts(value):
            raise ConfigError(key, value, f"must be {self.description}")


def is_number(value: Any) -> bool:
    """Returns True for a finite int or float; False for booleans, which Python counts among the integers."""
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_integer(value: Any) -> bool:
    # Counts, indices and seeds end up in 64-bit integers of torch and numpy, which overflow far from the setting.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_natural(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value >= 1


def _is_count_or_null(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_not_negative(value: Any) -> bool:
    return is_number(value) and value >= 0


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 < value <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_text_or_list(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_text(item) for item in value)
    return _is_text(value)


FLAG = ValueRule("true or false", _is_flag)
INTEGER = ValueRule("a whole number", _is_integer)
NATURAL = ValueRule("a whole number >= 0", _is_natural)
COUNT = ValueRule("a whole number >= 1", _is_count)
COUNT_OR_NULL = ValueRule("a whole number >= 1, or null", _is_count_or_null)
NUMBER = ValueRule("a finite number", is_number)
NOT_NEGATIVE = ValueRule("a finite number >= 0", _is_not_negative)
POSITIVE = ValueRule("a finite number above 0", _is_positive)
SHARE = ValueRule("a number above 0 and up to 1", _is_share)
TEXT = ValueRule("a non-empty string", _is_text)
TEXTS = ValueRule("a path, or a list of paths", _is_text_or_list)


def check_at_least(key: str, value: float, least: float) -> None:
    """Raises ConfigError if a number is below its minimum."""
    if value < least:
        raise ConfigError(key, value, f"must be >= {least}")


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError if a value is not one of the choices."""
    known = list(choices)
    if value not in known:
        raise ConfigError(key, value, f"choose one of {', '.join(known)}")
