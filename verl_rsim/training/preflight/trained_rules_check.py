"""Compares a job's rules of play with those under which its models were trained before."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_rsim.config.schema import ROLES, RsimConfig
from verl_rsim.core.policy_description import TRAINED_BOUNDS, find_description
from verl_rsim.training.checkpoint.training_record import trained_rules
from verl_rsim.training.preflight.doctor import Finding, ok, warning
from verl_rsim.utils.errors import ConfigError

SETTINGS = {"delimiter": "step_delimiter"}
"""Keys of ``rsim`` that have another name than the rule."""


def check_trained_rules(config: DictConfig, rsim: RsimConfig) -> Iterator[Finding]:
    """Yields a finding for each model of a job that says how it was trained, or says it wrongly."""
    played = trained_rules(config, rsim).as_block()
    for role in ROLES:
        block = config.planner if role == "planner" and not rsim.shared_weights else config.actor_rollout_ref
        try:
            description = find_description(str(block.model.path), role)
        except ConfigError as error:
            yield warning("rules", str(error), "the job can start, but trains other behaviour than the model has")
            continue
        if description is None:
            continue
        trained = description.rules.as_block()
        changed = [name for name in TRAINED_BOUNDS if trained[name] != played[name]]
        if not changed:
            yield ok("rules", f"those under which the {role} was trained")
            continue
        details = ", ".join(f"{name} {played[name]!r}, trained with {trained[name]!r}" for name in changed)
        fix = " ".join(f"rsim.{SETTINGS.get(name, name)}={trained[name]!r}" for name in changed)
        yield warning("rules", f"the {role} was trained under other rules: {details}", fix)
