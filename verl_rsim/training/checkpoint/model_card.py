"""Writes the model card (``README.md``) of an exported policy from its description, for people and for the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_rsim.core.policy_description import POLICY_FILE, SHARED, PolicyDescription
from verl_rsim.monitoring.report.stats import wilson
from verl_rsim.training.checkpoint.training_record import card_license
from verl_rsim.utils.hub_file import hub_file

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("model_card.md")
WHAT = {
    "planner": "This model is a **planner**: it chooses the strategy of each step of a reasoner.",
    "reasoner": "This model is a **reasoner**: it writes the steps of an answer under the strategies of a planner.",
    SHARED: "This model is **planner and reasoner** in one: it chooses the strategy of each step and writes the step.",
}


@dataclass(frozen=True, slots=True)
class ResultRow:
    """Holds the cells of a line of the table of results."""

    step: int
    accuracy: str
    interval: str
    episodes: int
    turns: str


def write_model_card(folder: Path, description: PolicyDescription, repository: str | None = None) -> None:
    """Writes a policy's model card into its folder.

    Args:
        folder: the policy's folder.
        description: how it was trained.
        repository: its id at the hub, which the card's commands name; None if it has none.
    """
    from huggingface_hub import ModelCard, ModelCardData

    role, training = description.role, description.training
    base_license = _license(description)
    data = ModelCardData(
        base_model=description.hub_id,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=base_license,
        tags=["verl", "verl-rsim", "rsim", role, "reinforcement-learning", "grpo"],
    )
    base = description.base_model.rpartition("/")[2]
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=f"rSIM {'planner and reasoner' if role == SHARED else role} from {base}",
        what=WHAT[role],
        policy_file=POLICY_FILE,
        partner=_partner(description, repository),
        planner="PLANNER" if role == "reasoner" else repository or "THIS",
        reasoner="REASONER" if role == "planner" else repository or "THIS",
        plays_planner=role != "reasoner",
        rules={name: json.dumps(value) for name, value in description.rules.as_block().items()},
        training=_training_table(description),
        results=[row for row in map(_result_row, training.get("validations", ())) if row],
        validation_data=_file_list(" on ", training.get("validation_data", ())),
        license_note=_license_note(base_license),
    )
    card.save(folder / CARD)


def _license(description: PolicyDescription) -> str | None:
    """Returns the licence of the base model: as the training found it, else as the hub has it."""
    bases = description.training.get("base_models", {})
    recorded = bases.get(description.role) or bases.get("reasoner") or {}
    if recorded.get("license") or not description.hub_id:
        return recorded.get("license")
    return card_license(hub_file(description.hub_id, CARD))


def _license_note(base_license: str | None) -> str:
    if base_license:
        return f"The base model's licence ({base_license}) applies."
    return "The base model's licence applies; it was not known when this card was written."


def _partner(description: PolicyDescription, repository: str | None) -> str:
    """Returns the sentences that say what to put for the names in the commands."""
    here = "" if repository else "THIS is this folder. "
    if description.role == SHARED:
        return f"{here}Any other model can take one of the two roles."
    other = "reasoner" if description.role == "planner" else "planner"
    base = description.training.get("base_models", {}).get(other, {}).get("name", "a model that is not recorded")
    if other in description.training.get("trained", ()):
        return f"{here}{other.upper()} is the {other} that was trained beside it, from {base}, or any other model."
    return f"{here}{other.upper()} is {base}, which was not changed in training, or any other model."


def _training_table(description: PolicyDescription) -> dict[str, str]:
    """Returns the lines of the table of the training."""
    training = description.training
    metrics = training.get("metrics", {})
    weights = {name: value for name, value in training.get("reward", {}).items() if value}
    rows = {
        "base model": description.base_model,
        "trained roles": " and ".join(training.get("trained", ())),
        "training step": f"{description.step} of {training.get('total_steps')}",
        "schedule": f"`{json.dumps(training.get('schedule'))}`, lambda {training.get('planner_weight')}",
        "a training step": f"{training.get('batch_size')} questions, {training.get('episodes')} episodes each",
        "advantages": ", ".join(f"{role}: {name}" for role, name in training.get("estimators", {}).items()),
        "planner's reward": f"`{json.dumps(weights)}`",
        "training data": _file_list("", training.get("train_data", ())),
        "accuracy of the step's episodes": _percent(metrics.get("reasoner/acc")),
        "versions": ", ".join(f"{name} {version}" for name, version in training.get("versions", {}).items()),
    }
    return {name: text for name, text in rows.items() if text}


def _file_list(lead: str, files: Any) -> str:
    """Returns data files with the beginnings of their hashes."""
    names = []
    for file in files:
        known = f" (sha256 {file['sha256'][:12]})" if file.get("sha256") else ""
        names.append(f"{file['name']}{known}")
    return lead + ", ".join(names) if names else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _result_row(validation: Mapping[str, Any]) -> ResultRow | None:
    """Returns the line of a validation, or None if it has no accuracy."""
    metrics = validation["metrics"]
    accuracy, episodes = metrics.get("reasoner/acc"), int(metrics.get("rsim/episodes", 0))
    if accuracy is None:
        return None
    estimate = wilson(accuracy * episodes, episodes)
    interval = f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %" if estimate else ""
    turns = metrics.get("rsim/turns")
    return ResultRow(
        validation["step"], _percent(accuracy), interval, episodes, "" if turns is None else f"{turns:.1f}"
    )
