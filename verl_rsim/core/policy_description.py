"""Describes an exported policy in a file of its folder, so that it is played by the rules under which it was trained.

``verl-rsim export`` writes ``rsim_policy.json``. Evaluation, transfer, serving and chains read it. A reader ignores
unknown keys of the file, but not of its block ``rules``: a rule that is not known here would silently be left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.core.rules import Rules
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.hub_file import hub_file

POLICY_FILE = "rsim_policy.json"
"""Name of the file; ``rsim.json`` is the state of a checkpoint."""
FORMAT = 1
TRAINED_BOUNDS = tuple(item.name for item in dataclasses.fields(Rules) if item.name != "max_prompt_tokens")
"""The fields of :class:`Rules` that a policy is trained with. The length of prompts is a matter of the dataset."""
ROLES = ("planner", "reasoner")
SHARED = "shared"
"""Role of a policy that plays both roles."""


@dataclass(frozen=True, slots=True)
class TrainedRules:
    """Holds the rules of play under which a policy was trained.

    Attributes:
        rules: bounds of an episode; ``max_prompt_tokens`` is not part of the training.
        merge_system: system messages that a chat template refuses were merged into the first user message; if False,
            such a job was refused. It changes no prompt that both can play.
        template_kwargs: arguments of each role's chat template, by role.

    Raises:
        ConfigError: a value is of a wrong type.
    """

    rules: Rules = field(default_factory=Rules)
    merge_system: bool = True
    template_kwargs: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {role: {} for role in ROLES})

    def __post_init__(self) -> None:
        if type(self.merge_system) is not bool:
            raise ConfigError("merge_system", self.merge_system, "must be true or false")
        given = self.template_kwargs
        if not isinstance(given, Mapping) or set(given) != set(ROLES):
            raise ConfigError("template_kwargs", given, "must have a block for each of planner and reasoner")
        for role in ROLES:
            if not isinstance(given[role], Mapping):
                raise ConfigError(f"template_kwargs.{role}", given[role], "must be a block of arguments")

    def as_block(self) -> dict[str, Any]:
        """Returns the rules in JSON's types."""
        bounds = {name: getattr(self.rules, name) for name in TRAINED_BOUNDS}
        return {**bounds, "merge_system": self.merge_system, "template_kwargs": self.template_kwargs}

    @classmethod
    def from_block(cls, block: Any) -> TrainedRules:
        """Returns the rules of :meth:`as_block`; every rule must be there, and no other.

        Raises:
            ConfigError: a rule is missing, unknown or invalid.
        """
        if not isinstance(block, Mapping):
            raise ConfigError("rules", block, "must be a block of rules")
        known = (*TRAINED_BOUNDS, "merge_system", "template_kwargs")
        for name in known:
            if name not in block:
                raise ConfigError(name, None, "is missing")
        for name in block:
            if name not in known:
                raise ConfigError(name, block[name], "is a rule that this version does not know; update verl-rsim")
        bounds = {name: block[name] for name in TRAINED_BOUNDS}
        return cls(Rules(**bounds), block["merge_system"], block["template_kwargs"])


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDescription:
    """Holds the contents of ``rsim_policy.json``.

    Attributes:
        role: "planner", "reasoner", or "shared" for a policy that plays both.
        base_model: name of the model that was trained: an id at the hub, or the name of a folder.
        hub_id: its id at the hub, if it is known.
        step: number of completed training steps.
        rules: rules of play.
        training: how the policy was trained, for readers; see
            :class:`verl_rsim.training.checkpoint.training_record.TrainingRecord`.
        format: version of this layout.
    """

    role: str
    base_model: str
    step: int
    rules: TrainedRules
    hub_id: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Writes the file into a policy's folder."""
        content = {
            "format": self.format,
            "role": self.role,
            "base_model": self.base_model,
            "hub_id": self.hub_id,
            "step": self.step,
            "rules": self.rules.as_block(),
            "training": self.training,
        }
        write_atomically(folder / POLICY_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def check_role(self, role: str, source: str) -> None:
        """Refuses a policy in a role that it was not trained for.

        Args:
            role: "planner" or "reasoner".
            source: the policy as the user named it.

        Raises:
            ConfigError: the policy was trained for the other role.
        """
        if self.role not in (role, SHARED):
            fix = f"is a trained {self.role} (its {POLICY_FILE} says so); give it as the {self.role}, and name a {role}"
            raise ConfigError(role, source, fix)


def find_description(model: str | Path, role: str) -> PolicyDescription | None:
    """Returns the description of a policy in a role, or None if the model has none.

    Args:
        model: folder of the model, or its id at the hub, of which the file alone is fetched.
        role: "planner" or "reasoner".

    Raises:
        ConfigError: the file is damaged, of another format or invalid, or the policy was trained for the other role.
    """
    folder = Path(model)
    file = folder / POLICY_FILE if folder.is_dir() else hub_file(str(model), POLICY_FILE)
    if file is None or not file.is_file():
        return None
    description = read_description(file, role, str(model))
    description.check_role(role, str(model))
    return description


def read_description(file: Path, role: str, source: str) -> PolicyDescription:
    """Reads ``rsim_policy.json``.

    Args:
        file: the file.
        role, source: the setting that named the model, and its value, for errors.

    Raises:
        ConfigError: the file is damaged, of another format, or invalid.
    """
    again = "export the policy again, or delete the file and give the rules as options"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(role, source, f"its {POLICY_FILE} is damaged; {again}") from None
    if not isinstance(values, dict):
        raise ConfigError(role, source, f"its {POLICY_FILE} is no JSON object; {again}")
    if values.get("format") != FORMAT:
        fix = f"its {POLICY_FILE} has format {values.get('format')!r}; this version reads {FORMAT}: update verl-rsim"
        raise ConfigError(role, source, fix)
    if values.get("role") not in (*ROLES, SHARED):
        fix = f"its {POLICY_FILE} has role={values.get('role')!r}, which is not planner, reasoner or shared; {again}"
        raise ConfigError(role, source, fix)
    try:
        rules = TrainedRules.from_block(values.get("rules"))
    except ConfigError as error:
        raise ConfigError(role, source, f"its {POLICY_FILE} has a wrong rule, {error}; {again}") from None
    step, hub_id, training = values.get("step"), values.get("hub_id"), values.get("training")
    return PolicyDescription(
        role=values["role"],
        base_model=str(values.get("base_model")),
        step=step if type(step) is int else 0,
        rules=rules,
        hub_id=hub_id if isinstance(hub_id, str) else None,
        training=training if isinstance(training, dict) else {},
    )
