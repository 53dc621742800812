"""Exports the policies of a checkpoint as Hugging Face folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from verl_rsim.training.checkpoint.store import FOLDERS, complete_checkpoints, read_state
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.progress import track

DTYPES = ("float32", "bfloat16", "float16")


def export_policies(checkpoint: Path, out: Path, dtype: str | None = None) -> dict[str, Path]:
    """Merges the shards of each trained policy into a Hugging Face folder.

    A LoRA adapter is merged into the weights and also written by itself to ``lora_adapter``.

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
    return folders


def _merge(shards: Path, target: Path, dtype: str, base: str | None) -> None:
    # In a process of its own: importing verl's merger takes seconds, and its memory is free again after each policy.
    command = [sys.executable, "-m", "verl_rsim.training.checkpoint.merge_shards", str(shards), str(target), dtype]
    if base:
        command.append(base)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (target / "config.json").is_file():
        raise DataError(f"{shards} cannot be merged:\n{(done.stdout + done.stderr)[-2000:]}")
