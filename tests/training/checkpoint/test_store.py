from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace

import pytest

from verl_rsim.monitoring.alarms import AlarmState
from verl_rsim.training.checkpoint.store import (
    STATE,
    SavedState,
    complete_checkpoints,
    finish,
    read_state,
    remove,
    resume_folder,
    step_folder,
    writing,
)
from verl_rsim.utils.errors import ConfigError, SaveError


def save(root, step, keep=None, began=0):
    step_folder(root, step).mkdir(parents=True)
    (step_folder(root, step) / "data.pt").write_text("data")
    finish(root, SavedState(step=step, stage=0, trained=("planner", "reasoner"), began=began), keep)


def test_an_unfinished_checkpoint_is_never_resumed_from(tmp_path):
    save(tmp_path, 2)
    step_folder(tmp_path, 4).mkdir()  # killed before it was complete
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("")  # killed while the tracker was written
    assert resume_folder("auto", tmp_path, None) == step_folder(tmp_path, 2)


def test_old_checkpoints_go_only_when_the_new_one_is_complete(tmp_path):
    for step in (2, 4, 10):
        save(tmp_path, step, keep=2)
    assert complete_checkpoints(tmp_path) == [step_folder(tmp_path, 4), step_folder(tmp_path, 10)]
    assert not step_folder(tmp_path, 2).exists()
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "10"


def test_a_run_that_went_back_keeps_its_own_checkpoints(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step)
    remove(step_folder(tmp_path, 4))
    save(tmp_path, 4, keep=1)  # resumed from step 2: the 6 of the old branch goes, not the new 4
    assert complete_checkpoints(tmp_path) == [step_folder(tmp_path, 4)]


def test_another_runs_checkpoints_are_not_counted_among_the_ones_to_keep(tmp_path):
    for step in (260, 300):
        save(tmp_path, step)
    for step in (20, 40):  # a run begun anew in the same folder
        save(tmp_path, step, keep=1, began=3)
    assert [read_state(folder).step for folder in complete_checkpoints(tmp_path)] == [260, 300, 40]


def test_a_copied_folder_is_resumed_from_its_last_checkpoint(tmp_path):
    for step in (60, 80, 100):
        save(tmp_path / "run", step)
    copy = tmp_path / "copy"
    for number, name in enumerate(("global_step_100", "global_step_80", "global_step_60")):
        shutil.copytree(tmp_path / "run" / name, copy / name)
        os.utime(copy / name / STATE, (number, number))
    assert resume_folder("auto", copy, None) == step_folder(copy, 100)
    save(copy, 120, keep=2)
    assert complete_checkpoints(copy) == [step_folder(copy, 100), step_folder(copy, 120)]


def test_a_damaged_checkpoint_is_not_passed_over(tmp_path):
    for step in (2, 4):
        save(tmp_path, step)
    (step_folder(tmp_path, 2) / STATE).write_text("{")
    with pytest.raises(ConfigError, match=r"global_step_2.*rsim\.json is damaged"):
        resume_folder("auto", tmp_path, None)
    save(tmp_path, 6)
    assert read_state(step_folder(tmp_path, 6)).number == 3


def test_resume_modes(tmp_path):
    assert resume_folder("auto", tmp_path, None) is None
    save(tmp_path, 3)
    assert resume_folder("disable", tmp_path, None) is None
    folder = step_folder(tmp_path, 3)
    assert resume_folder("resume_path", tmp_path, str(folder)) == folder
    saved = read_state(folder)
    assert replace(saved, files={}) == SavedState(step=3, stage=0, trained=("planner", "reasoner"), number=1)
    assert list(saved.files) == ["data.pt"]
    alarms = AlarmState({"zero_groups/planner": 4}, (30.0, 31.5))
    counted = SavedState(step=3, stage=0, trained=("planner",), alarms=alarms, dtypes={"planner": "float32"})
    finish(tmp_path, counted, None)
    assert read_state(folder) == replace(counted, number=2, files=saved.files)
    (folder / STATE).write_text('{"step": 3, "stage": 0, "trained": ["planner"], "format": 1}')
    assert read_state(folder).alarms == AlarmState(), "of before the alarms' counts were kept"
    with pytest.raises(ConfigError, match=r"trainer\.resume_mode"):
        resume_folder("sometimes", tmp_path, None)
    with pytest.raises(ConfigError, match="not a complete"):
        resume_folder("resume_path", tmp_path, str(tmp_path))
    (folder / STATE).write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        read_state(folder)


def test_a_save_that_fails_is_told_and_leaves_the_checkpoint_before_it(tmp_path):
    save(tmp_path, 2)
    said = r"global_step_4 could not be saved, with [\d,]+ MiB free there: No space left; the last .*global_step_2"

    def save_half():
        with writing(tmp_path, 4) as folder:
            (folder / "half.pt").write_text("half")
            raise RuntimeError("No space left\nand a long trace")

    with pytest.raises(SaveError, match=said):
        save_half()
    assert not step_folder(tmp_path, 4).exists(), "it would only take room"
    assert resume_folder("auto", tmp_path, None) == step_folder(tmp_path, 2)


def test_a_save_writes_into_an_empty_folder(tmp_path):
    step_folder(tmp_path, 4).mkdir()
    (step_folder(tmp_path, 4) / "old.pt").write_text("of a save that was cut short")
    with writing(tmp_path, 4) as folder:
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("size", [100, 5 << 20], ids=["small", "large"])
@pytest.mark.parametrize("damage", ["cut short", "changed at the end", "missing"])
def test_a_damaged_checkpoint_is_refused_with_the_one_before_it(tmp_path, size, damage):
    save(tmp_path, 2)
    weights = step_folder(tmp_path, 4) / "actor/model.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(os.urandom(size))
    finish(tmp_path, SavedState(step=4, stage=0, trained=("reasoner",)), None)
    assert resume_folder("auto", tmp_path, None) == step_folder(tmp_path, 4)
    content = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(content[:-1] if damage == "cut short" else content[:-1] + bytes([content[-1] ^ 1]))
    before = re.escape(str(step_folder(tmp_path, 2)))
    state = "missing" if damage == "missing" else "damaged"
    with pytest.raises(ConfigError, match=rf"global_step_4'.*actor/model.pt is {state}; .*{before}"):
        resume_folder("auto", tmp_path, None)
    with pytest.raises(ConfigError, match=rf"actor/model.pt is {state}"):
        resume_folder("resume_path", tmp_path, str(step_folder(tmp_path, 4)))


def test_a_checkpoint_of_before_fingerprints_were_kept_is_resumed_from(tmp_path):
    save(tmp_path, 2)
    state = step_folder(tmp_path, 2) / STATE
    values = json.loads(state.read_text())
    del values["files"]
    state.write_text(json.dumps(values))
    (step_folder(tmp_path, 2) / "data.pt").write_text("other")
    assert resume_folder("auto", tmp_path, None) == step_folder(tmp_path, 2)
