"""Names the controls that an evaluation compares a planner with; verl_rsim.evaluation.conditions plays them."""

from __future__ import annotations

from collections.abc import Iterable

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.utils.errors import ConfigError

ALONE, SELF_STRATEGIES, RANDOM, FIXED = "alone", "self_strategies", "random", "fixed"
BASE_PLANNER, PLANNER = "base_planner", "planner"
FIXED_EACH = tuple(f"{FIXED}:{strategy.name}" for strategy in STRATEGIES)
CONTROLS = (ALONE, SELF_STRATEGIES, RANDOM, *FIXED_EACH)
"""The controls that need no second planner."""


def parse_controls(names: Iterable[str]) -> tuple[str, ...]:
    """Expands the groups ``all``, ``fixed`` and ``none`` and returns the controls in the order of :data:`CONTROLS`.

    Raises:
        ConfigError: there is no such control.
    """
    chosen: set[str] = set()
    for name in names:
        groups = {"all": CONTROLS, FIXED: FIXED_EACH, "none": ()}
        found = groups.get(name, (name,) if name in CONTROLS else None)
        if found is None:
            known = ", ".join(("all", "none", ALONE, SELF_STRATEGIES, RANDOM, FIXED, FIXED_EACH[0], "..."))
            raise ConfigError("controls", name, f"there is no such control; known are {known}")
        chosen.update(found)
    return tuple(name for name in CONTROLS if name in chosen)
