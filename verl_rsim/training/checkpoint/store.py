"""Manages checkpoints: both policies, the schedule, the data position and the alarms' counts are saved as one unit.

A checkpoint is a folder ``global_step_N`` with ``actor`` (the reasoner, where verl's own tools expect it), ``planner``,
``data.pt`` and ``rsim.json``, which is written last and atomically. A folder without that file is incomplete and is
never resumed from, so a kill during a save leaves the previous checkpoint in use.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from verl_rsim.core.policy_description import SHARED
from verl_rsim.monitoring.alarms import AlarmState
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import ConfigError, SaveError

STATE = "rsim.json"
FORMAT = 1
EDGE_BYTES = 1 << 20
FOLDERS = {"reasoner": "actor", "planner": "planner", SHARED: "actor"}
"""Folder of each policy inside a checkpoint."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Holds the metrics of a validation, without their prefix ``val-``, and the training steps completed before it."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """Holds the contents of ``rsim.json``.

    Fields with a default may be absent in checkpoints of older versions.

    Attributes:
        step: number of completed training steps.
        stage: index of the schedule's stage at that training step.
        trained: roles whose weights and optimizer are in the folder; just :data:`SHARED` if one policy plays both.
        alarms: number of training steps for which each alarm's metric has been beyond its limit.
        dtypes: data type in which each role's servers computed, by role.
        models: path or id of the model from which each role was trained, by role.
        number: sequence number of the save within the run's folder, from 1.
        began: sequence number of the run's first save, over all its starts.
        files: fingerprint of each file of the checkpoint, by its path in the folder.
        training: how the policies are trained, a :class:`TrainingRecord` in JSON's types; empty if it is not known.
        metrics: metrics of the training step.
        validations: the run's first validation and its newest one.
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
    files: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    validations: tuple[ValidationResult, ...] = ()
    format: int = FORMAT

    def policy_of(self, role: str) -> str:
        """Returns the name, as in :data:`FOLDERS`, of the policy that plays a role."""
        return SHARED if SHARED in self.trained else role


def step_folder(root: Path, step: int) -> Path:
    """Returns the path of a training step's checkpoint."""
    return root / f"global_step_{step}"


def complete_checkpoints(root: Path) -> list[Path]:
    """Returns the complete checkpoints in ``root``, in the order in which they were saved.

    The order differs from that of the steps if a run resumed from an earlier step and left later checkpoints behind.
    """
    complete = [path for path in root.glob("global_step_*") if (path / STATE).is_file()]
    # Sequence numbers rather than file times: a copied folder has new times.
    return sorted(complete, key=_save_order)


def _save_order(folder: Path) -> tuple[float, int]:
    """Returns the sort key of a checkpoint: its save's sequence number, then its step.

    A checkpoint with an unreadable state sorts last. So ``resume_mode=auto`` picks it and reports the damage, instead
    of silently training on from an older one.
    """
    try:
        state = read_state(folder)
    except ConfigError:
        return math.inf, 0
    return state.number, state.step


def remove(folder: Path) -> None:
    """Deletes a checkpoint. Its state file goes first, so that a kill in between leaves no complete-looking folder."""
    (folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def read_state(folder: Path) -> SavedState:
    """Returns the state of a complete checkpoint.

    Raises:
        ConfigError: the folder is not a complete checkpoint of this format.
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
    return SavedState(
        step=values["step"],
        stage=values["stage"],
        trained=tuple(values["trained"]),
        alarms=AlarmState(alarms["beyond"], tuple(alarms["lengths"])),
        dtypes=values.get("dtypes", {}),
        models=values.get("models", {}),
        number=values.get("number", 0),
        began=values.get("began", 0),
        files=values.get("files", {}),
        training=values.get("training", {}),
        metrics=values.get("metrics", {}),
        validations=tuple(ValidationResult(**result) for result in values.get("validations", ())),
    )


def resume_folder(mode: str, root: Path, path: str | None) -> Path | None:
    """Returns the checkpoint to resume from, or None to start a new run.

    Args:
        mode: ``trainer.resume_mode``: auto, disable or resume_path.
        root: ``trainer.default_local_dir``.
        path: ``trainer.resume_from_path``.

    Raises:
        ConfigError: the mode is unknown, or the checkpoint is not complete or not intact.
    """
    if mode == "disable":
        return None
    if mode == "auto":
        complete = complete_checkpoints(root)
        if not complete:
            return None
        _check_intact(complete[-1], complete[:-1])
        return complete[-1]
    if mode != "resume_path":
        raise ConfigError("trainer.resume_mode", mode, "choose auto, disable or resume_path")
    if not path:
        raise ConfigError(
            "trainer.resume_from_path", path, "name the checkpoint's folder, or set trainer.resume_mode=auto"
        )
    folder = Path(path).expanduser().absolute()
    _check_intact(folder, ())
    return folder


def _check_intact(folder: Path, earlier: Sequence[Path]) -> None:
    """Refuses a checkpoint whose files are not those that were saved, before any model is loaded.

    Args:
        earlier: complete checkpoints of the same folder that were saved before it.

    Raises:
        ConfigError: the folder is no complete checkpoint, or a file is missing, cut short or changed.
    """
    for name, fingerprint in read_state(folder).files.items():
        file = folder / name
        if file.is_file() and _fingerprint(file) == fingerprint:
            continue
        state = "is damaged" if file.is_file() else "is missing"
        fix = f"its file {name} {state}; restore it, or remove the folder"
        if earlier:
            fix += f" and resume from the checkpoint before it, {earlier[-1]}"
        raise ConfigError("trainer.resume_from_path", str(folder), fix)


def _fingerprint(file: Path) -> str:
    """Returns the size of a file and a hash of its first and last MiB.

    A file that was cut short or never fully written differs in these. Hashing all of a large model would delay every
    save and every start by minutes.
    """
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(EDGE_BYTES))
        stream.seek(max(0, size - EDGE_BYTES))
        digest.update(stream.read(EDGE_BYTES))
    return f"{size}:{digest.hexdigest()[:16]}"


@contextmanager
def writing(root: Path, step: int) -> Iterator[Path]:
    """Yields an empty folder for a training step's checkpoint; deletes what an older run or an interrupted save left.

    Raises:
        SaveError: writing failed, most often because the disk is full; the folder has been deleted.
    """
    folder = step_folder(root, step)
    remove(folder)
    try:
        folder.mkdir(parents=True)
        yield folder
    except (OSError, RuntimeError) as error:  # torch's zip writer raises a bare RuntimeError on a full disk
        # The free space is read before the unfinished folder is deleted: it shows whether the disk was full.
        free = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free / 2**20
        remove(folder)
        kept = complete_checkpoints(root)
        last = f"the last checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        # Ray wraps the error of a worker; its cause has the worker's message without the remote traceback.
        reason = str(getattr(error, "cause", None) or error).strip().partition("\n")[0]
        raise SaveError(f"{folder} could not be saved, with {free:,.0f} MiB free there: {reason}; {last}") from error


def finish(root: Path, state: SavedState, keep: int | None) -> None:
    """Marks a training step's checkpoint as complete and points verl's tracker file at it.

    Args:
        root: the run's folder.
        state: written to ``rsim.json``, with the next sequence number.
        keep: number of the run's newest checkpoints to keep, None for all. Older ones are deleted, but not those of
            another run, which were saved before ``state.began``.
    """
    folder = step_folder(root, state.step)
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name != STATE:
            files[str(file.relative_to(folder))] = _fingerprint(file)
    state = replace(state, number=next_number(root), files=files)
    write_state(folder, state)
    write_atomically(root / "latest_checkpointed_iteration.txt", str(state.step))
    if keep:
        own = [folder for folder in complete_checkpoints(root) if _save_order(folder)[0] >= state.began]
        for folder in own[:-keep]:
            remove(folder)


def write_state(folder: Path, state: SavedState) -> None:
    """Writes a checkpoint's ``rsim.json``, in place of an older one if there is one."""
    write_atomically(folder / STATE, json.dumps(asdict(state)))


def next_number(root: Path) -> int:
    """Returns the sequence number of the next save in ``root``."""
    numbers = [_save_order(folder)[0] for folder in complete_checkpoints(root)]
    return int(max((number for number in numbers if math.isfinite(number)), default=0)) + 1
