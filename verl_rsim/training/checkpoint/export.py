"""Exports the policies of a checkpoint as Hugging Face folders that say how they were trained."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from verl_rsim.core.policy_description import SHARED, PolicyDescription, TrainedRules
from verl_rsim.training.checkpoint.model_card import write_model_card
from verl_rsim.training.checkpoint.store import FOLDERS, SavedState, complete_checkpoints, read_state
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.progress import track

DTYPES = ("float32", "bfloat16", "float16")


def export_policies(checkpoint: Path, out: Path, dtype: str | None = None) -> dict[str, Path]:
    """Merges the shards of each trained policy into a Hugging Face folder.

    A LoRA adapter is merged into the weights and also written by itself to ``lora_adapter``. Each folder gets a
    description (:mod:`verl_rsim.core.policy_description`) and a model card, unless the checkpoint was saved by an older
    version, which did not record the training.

    Args:
        checkpoint: a folder ``global_step_N``, or its parent, whose newest complete checkpoint is exported.
        out: receives the folders ``planner`` and ``reasoner``, or ``shared``; frozen policies are not exported.
        dtype: one of :data:`DTYPES`; None for the data type in which the policy was served during training.

    Returns:
        The folder of each trained role.

    Raises:
        ConfigError: the dtype is unknown.
        DataError: there is nothing to export, or the merger failed; its output is in the message.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError("--dtype", dtype, f"choose one of {', '.join(DTYPES)}")
    if not checkpoint.name.startswith("global_step_"):
        complete = complete_checkpoints(checkpoint)
        if not complete:
            raise DataError(f"{checkpoint}: holds no complete checkpoint (global_step_N with rsim.json)")
        checkpoint = complete[-1]
    state = read_state(checkpoint)
    folders: dict[str, Path] = {}
    for role in track(state.trained, f"Exporting {checkpoint.name}", len(state.trained)):
        folders[role] = out / role
        _merge(
            checkpoint / FOLDERS[role],
            folders[role],
            dtype or state.dtypes.get(role, "bfloat16"),
            state.models.get(role),
        )
        if description := describe(state, role):
            description.write(folders[role])
            write_model_card(folders[role], description)
    return folders


def describe(state: SavedState, role: str) -> PolicyDescription | None:
    """Returns the description of a checkpoint's policy; None if the checkpoint does not say how it was trained.

    Args:
        state: the checkpoint's state.
        role: a role of ``state.trained``.
    """
    if not state.training:
        return None
    training = dict(state.training)
    rules = TrainedRules.from_block(training.pop("rules"))
    base = training["base_models"]["reasoner" if role == SHARED else role]
    training |= {"metrics": state.metrics, "validations": [asdict(result) for result in state.validations]}
    return PolicyDescription(
        role=role, base_model=base["name"], hub_id=base["hub_id"], step=state.step, rules=rules, training=training
    )


def _merge(shards: Path, target: Path, dtype: str, base: str | None) -> None:
    # In a process of its own: importing verl's merger takes seconds, and its memory is free again after each policy.
    command = [sys.executable, "-m", "verl_rsim.training.checkpoint.merge_shards", str(shards), str(target), dtype]
    if base:
        command.append(base)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (target / "config.json").is_file():
        raise DataError(f"{shards} cannot be merged:\n{(done.stdout + done.stderr)[-2000:]}")
