"""Saving and resuming both policies, the schedule, the data position and the alarms' counts as one.

A checkpoint is a folder ``global_step_N`` with ``actor`` (the reasoner, where verl's own tools expect it), ``planner``,
``data.pt`` and, written last and in one step, ``rsim.json``. A folder without that file is unfinished and is never
resumed from, so a kill during a save leaves the checkpoint before it in use.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from verl_rsim.monitoring.alarms import AlarmState
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import ConfigError, SaveError

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
        alarms: how long alarms have been beyond their limits; nothing in a checkpoint of before it was kept.
        dtypes: what each role's servers computed in; nothing in a checkpoint of before it was kept.
        models: what each role was trained from; nothing in a checkpoint of before it was kept.
        number: of the save, among those that its run's folder held, from 1; 0 in a checkpoint of before it was kept.
        began: the first number that its run saved under, over all its starts; 0 in a checkpoint of before it was kept.
        format: version of this layout.
    """

    step: int
    stage: int
    trained: tuple[str, ...]
    alarms: AlarmState = field(default_factory=AlarmState)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    began: int = 0
    format: int = FORMAT

    def policy_of(self, role: str) -> str:
        """Which policy of :data:`FOLDERS` plays a role."""
        return SHARED if SHARED in self.trained else role


def step_folder(root: Path, step: int) -> Path:
    """Where a step's checkpoint lies."""
    return root / f"global_step_{step}"


def finished(root: Path) -> list[Path]:
    """The complete checkpoints below ``root``, in the order in which they were completed.

    That is the order of steps, but for a run that resumed from an earlier step and left the later ones behind. Times of
    files are not asked: a copied folder has others.
    """
    complete = [path for path in root.glob("global_step_*") if (path / STATE).is_file()]
    return sorted(complete, key=_place)


def _place(folder: Path) -> tuple[float, int]:
    """The number of a checkpoint's save, and its step; one that cannot be read comes last, not to be passed over."""
    try:
        state = read_state(folder)
    except ConfigError:
        return math.inf, 0
    return state.number, state.step


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
        fix = f"its {STATE} is damaged; remove this folder, or resume from another"
        raise ConfigError(key, str(folder), fix) from None
    if values.get("format") != FORMAT:
        raise ConfigError(key, str(folder), f"is of format {values.get('format')}; this version reads {FORMAT}")
    alarms = values.get("alarms", {"beyond": {}, "lengths": ()})
    counted = AlarmState(alarms["beyond"], tuple(alarms["lengths"]))
    described = (values.get("dtypes", {}), values.get("models", {}), values.get("number", 0), values.get("began", 0))
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


@contextmanager
def writing(root: Path, step: int) -> Iterator[Path]:
    """A new folder for a step's checkpoint; what an old run, or a save cut short, left there is gone.

    Raises:
        SaveError: what was done in it failed, most often for want of room; the folder is gone, too.
    """
    folder = step_folder(root, step)
    remove(folder)
    try:
        folder.mkdir(parents=True)
        yield folder
    except (OSError, RuntimeError) as error:  # torch's writer has no error of its own for a full disk
        free = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free / 2**20
        remove(folder)
        kept = finished(root)
        last = f"the last checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        said = str(getattr(error, "cause", None) or error).strip().partition("\n")[0]
        raise SaveError(f"{folder} could not be saved, with {free:,.0f} MiB free there: {said}; {last}") from error


def finish(root: Path, state: SavedState, keep: int | None) -> None:
    """Declare a step's folder complete, point verl's tracker file at it, and drop its run's oldest beyond ``keep``;
    checkpoints of another run, that were here before ``state.began``, stay.
    """
    state = replace(state, number=next_number(root))
    write_atomically(step_folder(root, state.step) / STATE, json.dumps(asdict(state)))
    write_atomically(root / "latest_checkpointed_iteration.txt", str(state.step))
    if keep:
        own = [folder for folder in finished(root) if _place(folder)[0] >= state.began]
        for folder in own[:-keep]:
            remove(folder)


def next_number(root: Path) -> int:
    """The number of the next save below ``root``."""
    numbers = [number for number, _ in map(_place, finished(root)) if math.isfinite(number)]
    return int(max(numbers, default=0)) + 1
