"""Saving and resuming both policies, the schedule, the data position and the guard's counts as one.

A checkpoint is a folder ``global_step_N`` with ``actor`` (the reasoner, where verl's own tools expect it), ``planner``,
``data.pt`` and, written last and in one step, ``rsim.json``. A folder without that file is unfinished and is never
resumed from, so a kill during a save leaves the checkpoint before it in use.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from verl_rsim.errors import ConfigError
from verl_rsim.guard import GuardState

STATE = "rsim.json"
FORMAT = 1
SHARED = "shared"
"""The one policy that plays both roles (``rsim.shared_weights``), in the place of a role."""
FOLDERS = {"reasoner": "actor", "planner": "planner", SHARED: "actor"}


@dataclass(frozen=True, slots=True)
class SavedState:
    """What ``rsim.json`` says.

    Attributes:
        step: training steps done.
        stage: index of the schedule's stage at that step.
        trained: the roles whose weights and optimizer are in the folder; :data:`SHARED` alone where one plays both.
        guard: how long alarms have been beyond their limits; nothing in a checkpoint of before it was kept.
        dtypes: what each role's servers computed in; nothing in a checkpoint of before it was kept.
        models: what each role was trained from; nothing in a checkpoint of before it was kept.
        format: version of this layout.
    """

    step: int
    stage: int
    trained: tuple[str, ...]
    guard: GuardState = field(default_factory=GuardState)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def policy_of(self, role: str) -> str:
        """Which policy of :data:`FOLDERS` plays a role."""
        return SHARED if SHARED in self.trained else role


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see the old one or the new one, even after a kill or a power cut."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def step_folder(root: Path, step: int) -> Path:
    """Where a step's checkpoint lies."""
    return root / f"global_step_{step}"


def finished(root: Path) -> list[Path]:
    """The complete checkpoints below ``root``, in the order in which they were completed.

    That is the order of steps, but for a run that resumed from an earlier step and left the later ones behind.
    """
    complete = [path for path in root.glob("global_step_*") if (path / STATE).is_file()]
    return sorted(complete, key=lambda path: (path / STATE).stat().st_mtime_ns)


def remove(folder: Path) -> None:
    """Delete a checkpoint; incomplete from the first moment on."""
    (folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def read_state(folder: Path) -> SavedState:
    """The state a complete checkpoint was saved in.

    Raises:
        ConfigError: the folder is no complete checkpoint of this format.
    """
    key = "trainer.resume_from_path"
    try:
        values = json.loads((folder / STATE).read_text())
    except OSError:
        fix = f"has no {STATE}: it is not a complete verl-rsim checkpoint; name a folder global_step_N that has one"
        raise ConfigError(key, str(folder), fix) from None
    except ValueError:
        raise ConfigError(key, str(folder), f"its {STATE} is damaged; resume from an earlier checkpoint") from None
    if values.get("format") != FORMAT:
        raise ConfigError(key, str(folder), f"is of format {values.get('format')}; this version reads {FORMAT}")
    guard = values.get("guard", {"beyond": {}, "lengths": ()})
    counted = GuardState(guard["beyond"], tuple(guard["lengths"]))
    described = (values.get("dtypes", {}), values.get("models", {}))
    return SavedState(values["step"], values["stage"], tuple(values["trained"]), counted, *described)


def resume_folder(mode: str, root: Path, path: str | None) -> Path | None:
    """The checkpoint to resume from, None to start anew.

    Args:
        mode: ``trainer.resume_mode``: auto, disable or resume_path.
        root: ``trainer.default_local_dir``.
        path: ``trainer.resume_from_path``.

    Raises:
        ConfigError: unknown mode, or a path that is no complete checkpoint.
    """
    if mode == "disable":
        return None
    if mode == "auto":
        complete = finished(root)
        return complete[-1] if complete else None
    if mode != "resume_path":
        raise ConfigError("trainer.resume_mode", mode, "choose auto, disable or resume_path")
    if not path:
        raise ConfigError(
            "trainer.resume_from_path", path, "name the checkpoint's folder, or set trainer.resume_mode=auto"
        )
    folder = Path(path).expanduser().absolute()
    read_state(folder)
    return folder


def finish(root: Path, state: SavedState, keep: int | None) -> None:
    """Declare a step's folder complete, point verl's tracker file at it, and drop the oldest beyond ``keep``."""
    write_atomically(step_folder(root, state.step) / STATE, json.dumps(asdict(state)))
    write_atomically(root / "latest_checkpointed_iteration.txt", str(state.step))
    if keep:
        for folder in finished(root)[:-keep]:
            remove(folder)
