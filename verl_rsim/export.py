"""A checkpoint's policies as Hugging Face folders, through verl's own model merger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from verl_rsim.checkpoint import FOLDERS, finished, read_state
from verl_rsim.errors import DataError
from verl_rsim.progress import track


def export_policies(checkpoint: Path, out: Path) -> dict[str, Path]:
    """Merge each trained policy's shards.

    Args:
        checkpoint: a folder ``global_step_N``, or the one that holds them (the newest complete one is taken).
        out: gets ``planner`` and ``reasoner``, or ``shared``; a frozen policy has none.

    Returns:
        Each trained role's folder.

    Raises:
        DataError: nothing to export, or the merger failed; its output is in the message.
    """
    if not checkpoint.name.startswith("global_step_"):
        complete = finished(checkpoint)
        if not complete:
            raise DataError(f"{checkpoint}: holds no complete checkpoint (global_step_N with rsim.json)")
        checkpoint = complete[-1]
    folders, trained = {}, read_state(checkpoint).trained
    for role in track(trained, f"Exporting {checkpoint.name}", len(trained)):
        folders[role] = out / role
        _merge(checkpoint / FOLDERS[role], folders[role])
    return folders


def _merge(shards: Path, target: Path) -> None:
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    done = subprocess.run(
        [*command, "--local_dir", str(shards), "--target_dir", str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode or not (target / "config.json").is_file():
        raise DataError(f"verl's model merger failed on {shards}:\n{(done.stdout + done.stderr)[-2000:]}")
