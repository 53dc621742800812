"""A checkpoint's policies as Hugging Face folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from verl_rsim.training.checkpoint.store import FOLDERS, finished, read_state
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.progress import track

DTYPES = ("float32", "bfloat16", "float16")


def export_policies(checkpoint: Path, out: Path, dtype: str | None = None) -> dict[str, Path]:
    """Merge each trained policy's shards, and its LoRA adapter into them; the adapter alone is in ``lora_adapter``.

    Args:
        checkpoint: a folder ``global_step_N``, or the one that holds them (the newest complete one is taken).
        out: gets ``planner`` and ``reasoner``, or ``shared``; a frozen policy has none.
        dtype: one of :data:`DTYPES`; None: what the policy's servers computed in while it was trained.

    Returns:
        Each trained role's folder.

    Raises:
        ConfigError: unknown dtype.
        DataError: nothing to export, or the merger failed; its output is in the message.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError("--dtype", dtype, f"choose one of {', '.join(DTYPES)}")
    if not checkpoint.name.startswith("global_step_"):
        complete = finished(checkpoint)
        if not complete:
            raise DataError(f"{checkpoint}: holds no complete checkpoint (global_step_N with rsim.json)")
        checkpoint = complete[-1]
    state, folders = read_state(checkpoint), {}
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
    command = [
        sys.executable,
        "-m",
        "verl_rsim.training.checkpoint.merge_shards",
        str(shards),
        str(target),
        dtype,
        *([base] if base else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (target / "config.json").is_file():
        raise DataError(f"{shards} cannot be merged:\n{(done.stdout + done.stderr)[-2000:]}")
