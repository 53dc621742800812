"""Finds the rules of an evaluation: those with which its planners were trained, changed by what the user gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from verl_rsim.core.policy_description import POLICY_FILE, TRAINED_BOUNDS, PolicyDescription, TrainedRules
from verl_rsim.core.rules import Rules
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.settings_blocks import build

RULE_NAMES = tuple(item.name for item in dataclasses.fields(Rules))
TEMPLATE = "template_kwargs"
PLAYED = (*TRAINED_BOUNDS, TEMPLATE)
"""The rules that an evaluation plays by. It always merges system messages that a template refuses."""


@dataclass(frozen=True, slots=True)
class ResolvedRules:
    """Holds the rules to play by, and what the user should know about them.

    Attributes:
        trained: the rules, and the arguments of both chat templates.
        note: one line for the user; empty if there is nothing to say.
    """

    trained: TrainedRules
    note: str = ""

    @property
    def rules(self) -> Rules:
        """The bounds of an episode."""
        return self.trained.rules

    def show(self, console: Console) -> None:
        """Prints the note."""
        if self.note:
            console.print(self.note, style="yellow", highlight=False, markup=False, soft_wrap=True)


def resolve_rules(planners: Mapping[str, PolicyDescription | None], given: Mapping[str, Any]) -> ResolvedRules:
    """Returns the rules by which planners are played.

    Args:
        planners: descriptions of the planners by the names that the user gave; None for a planner without one. Such
            planners follow the others, as a planner before its training does.
        given: rules that the user gave, by the names of the fields of :class:`Rules`; ``template_kwargs``, if given,
            replaces the arguments of both chat templates.

    Raises:
        ConfigError: a given rule is invalid, or the planners were trained with different rules and the user gave none.
    """
    bounds = {name: value for name, value in given.items() if name != TEMPLATE}
    build(Rules, "rules", bounds)  # an invalid key or value is the user's, whatever the planners say
    described = {name: planner.rules for name, planner in planners.items() if planner}
    _check_agreement(described, given)
    trained = next(iter(described.values()), TrainedRules())
    resolved = dataclasses.replace(trained, rules=dataclasses.replace(trained.rules, **bounds))
    if TEMPLATE in given:
        resolved = dataclasses.replace(
            resolved, template_kwargs=dict.fromkeys(trained.template_kwargs, given[TEMPLATE])
        )
    if described:
        return ResolvedRules(resolved, _changes(trained.as_block(), resolved.as_block()))
    return ResolvedRules(resolved, _hint(list(planners), resolved.rules, bounds))


def _check_agreement(described: Mapping[str, TrainedRules], given: Mapping[str, Any]) -> None:
    """Refuses planners of different rules, unless the user gave the rules in which they differ."""
    blocks = {name: rules.as_block() for name, rules in described.items()}
    for rule in PLAYED:
        values = {name: block[rule] for name, block in blocks.items()}
        if rule in given or all(value == next(iter(values.values())) for value in values.values()):
            continue
        fix = "the planners were trained with different rules; give this rule, or evaluate them one by one"
        raise ConfigError(f"rules.{rule}", values, fix)


def _changes(trained: Mapping[str, Any], played: Mapping[str, Any]) -> str:
    """Returns the line that says which rules are other than in training."""
    changed = []
    for name in PLAYED:
        if played[name] != trained[name]:
            changed.append(f"{name} {played[name]!r}, trained with {trained[name]!r}")
    return f"Other rules than in training: {'; '.join(changed)}" if changed else ""


def _hint(planners: list[str], rules: Rules, given: Mapping[str, Any]) -> str:
    """Returns the line for planners that do not say how they were trained; empty if the user gave all rules."""
    assumed = [f"{name} {getattr(rules, name)!r}" for name in TRAINED_BOUNDS if name not in given]
    if not planners or not assumed:
        return ""
    verb = "does" if len(planners) == 1 else "do"
    return (
        f"{', '.join(planners)} {verb} not say by which rules to play (no {POLICY_FILE}); "
        f"assumed: {', '.join(assumed)}. Other rules can be given"
    )
