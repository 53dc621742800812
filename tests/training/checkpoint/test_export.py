"""What an export says of itself: rules, training and results, all from the checkpoint."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from verl_rsim.config.recipes import compose_recipe
from verl_rsim.config.schema import parse_config
from verl_rsim.core.policy_description import POLICY_FILE, TrainedRules, find_description
from verl_rsim.core.rules import Rules
from verl_rsim.core.schedule import build_schedule
from verl_rsim.monitoring.alarms import AlarmState
from verl_rsim.training.checkpoint import export
from verl_rsim.training.checkpoint.job_checkpoints import JobCheckpoints
from verl_rsim.training.checkpoint.store import read_state
from verl_rsim.training.checkpoint.training_record import base_model, training_record
from verl_rsim.utils.artifact_folders import digest

OVERRIDES = [
    "rsim.max_turns=4",
    "rsim.max_step_tokens=50",
    "rsim.max_answer_tokens=60",
    "rsim.injection=chat",
    "rsim.step_delimiter='##'",
    "rsim.planner_decoding=free",
    "rsim.merge_system=false",
    "rsim.reward.turn_cost=0.25",
    "+data.apply_chat_template_kwargs.enable_thinking=false",
]
ARGUMENTS = {"enable_thinking": False}
TRAINED = TrainedRules(
    Rules(4, 50, 60, injection="chat", delimiter="##", planner_decoding="free"),
    False,
    {"planner": ARGUMENTS, "reasoner": ARGUMENTS},
)
"""The rules of OVERRIDES, each other than the default."""


class Policy:
    """What a checkpoint sees of a policy; its shards are an empty folder."""

    served_dtype = "float32"

    def __init__(self, role: str, base: Path, frozen: bool = False):
        self.role, self.base_model, self.frozen = role, str(base), frozen
        self.actor_rollout_wg = SimpleNamespace(save_checkpoint=lambda path, *_, **__: Path(path).mkdir())


LOADER = SimpleNamespace(state_dict=dict)
METRICS = {
    "reasoner/acc": np.float32(0.5),
    "count": np.int64(3),
    "bad": float("nan"),
    "list": np.ones(2),
    "note": "text",
}
"""What a training step logs: numbers of several types, and what is none."""


@pytest.fixture
def job(home, tmp_path, monkeypatch):
    """Starts a job: its checkpoints, and its policies; the models are those of the tiny recipe."""
    monkeypatch.setenv("RSIM_HOME", str(home))

    def merge(shards, target, dtype, base):
        shutil.copytree(base, target)

    monkeypatch.setattr(export, "_merge", merge)

    def start(*overrides: str):
        config = compose_recipe("tiny", [*overrides, f"trainer.default_local_dir={tmp_path / 'run'}"])
        rsim = parse_config(OmegaConf.to_container(config.rsim, resolve=True))
        bases = {"planner": home / "models/tiny-qwen2", "reasoner": home / "models/tiny-llama"}
        models = {role: str(folder) for role, folder in bases.items()}
        record = training_record(config, rsim, models, 10)
        schedule = build_schedule(rsim.schedule, rsim.weight, 10)
        policies = [Policy(role, folder, role in rsim.frozen) for role, folder in bases.items()]
        return JobCheckpoints(config.trainer, rsim, schedule, record), policies

    return start


def test_every_rule_comes_back_from_an_export_that_was_moved(job, tmp_path):
    checkpoints, policies = job(*OVERRIDES)
    checkpoints.save(2, policies, LOADER, AlarmState(), {})
    folders = export.export_policies(tmp_path / "run", tmp_path / "out")
    default = TrainedRules().as_block()
    assert all(value != default[name] for name, value in TRAINED.as_block().items())
    for role, folder in folders.items():
        moved = shutil.move(folder, tmp_path / "elsewhere" / role)
        found = find_description(moved, role)
        assert found.rules == TRAINED
        assert (found.role, found.step) == (role, 2)


def test_an_export_says_how_it_was_trained_without_paths_of_this_machine(job, home, tmp_path):
    checkpoints, policies = job(*OVERRIDES)
    checkpoints.save(2, policies, LOADER, AlarmState(), METRICS)
    folder = export.export_policies(tmp_path / "run", tmp_path / "out")["planner"]
    text = (folder / POLICY_FILE).read_text()
    training = json.loads(text)["training"]
    assert training["base_models"]["reasoner"] == {"name": "tiny-llama", "hub_id": None, "license": None}
    train = home / "data/arithmetic/train.parquet"
    assert training["train_data"] == [
        {"name": "arithmetic/train.parquet", "bytes": train.stat().st_size, "sha256": digest(train)}
    ]
    assert training["metrics"] == {"reasoner/acc": 0.5, "count": 3}
    assert training["reward"]["turn_cost"] == 0.25
    assert (training["schedule"], training["planner_weight"], training["total_steps"]) == ("leader_first", 0.5, 10)
    assert {"verl-rsim", "verl", "torch", "transformers"} <= set(training["versions"])
    for written in (text, (folder / "README.md").read_text()):
        assert str(home) not in written
        assert str(tmp_path) not in written


def test_the_card_has_the_hubs_metadata_the_results_and_three_ways_to_use_it(job, tmp_path):
    checkpoints, policies = job(*OVERRIDES, "rsim.train=[planner]")
    checkpoints.add_validation(0, {"val-reasoner/acc": 0.25, "val-rsim/episodes": 8, "val-rsim/turns": 2.5})
    checkpoints.save(2, policies, LOADER, AlarmState(), {"reasoner/acc": 0.5})
    checkpoints.add_validation(2, {"val-reasoner/acc": 0.75, "val-rsim/episodes": 8, "val-rsim/turns": 3.0})
    folders = export.export_policies(tmp_path / "run", tmp_path / "out")
    assert list(folders) == ["planner"]
    card = ModelCard.load(folders["planner"] / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.base_model is None, "a folder's name is no id of the hub"
    assert {"verl", "rsim", "planner"} <= set(card.data.tags)
    for snippet in ("verl-rsim eval --planner THIS", "verl-rsim serve --planner THIS", 'from_pretrained("THIS")'):
        assert snippet in card.text
    assert "| 0 | 25.0 % | 7.1 to 59.1 % | 8 | 2.5 |" in card.text
    assert "| 2 | 75.0 % | 40.9 to 92.9 % | 8 | 3.0 |" in card.text
    assert '| delimiter | `"##"` |' in card.text
    assert "REASONER is tiny-llama, which was not changed in training" in card.text


def test_the_last_validation_is_kept_by_a_resumed_run(job, tmp_path):
    checkpoints, policies = job()
    for step, accuracy in enumerate((0.1, 0.2, 0.3)):
        checkpoints.add_validation(step, {"val-reasoner/acc": accuracy})
    checkpoints.save(2, policies, LOADER, AlarmState(), {})
    state = read_state(tmp_path / "run/global_step_2")
    assert [result.metrics["reasoner/acc"] for result in state.validations] == [0.1, 0.3]
    assert state.training["rules"]["max_turns"] == 3


def test_a_checkpoint_that_does_not_know_its_training_is_exported_without_a_description(job, tmp_path):
    checkpoints, policies = job()
    folder = checkpoints.save(2, policies, LOADER, AlarmState(), {})
    state = dataclasses.asdict(read_state(folder))
    del state["training"], state["metrics"], state["validations"]
    (folder / "rsim.json").write_text(json.dumps(state))
    planner = export.export_policies(tmp_path / "run", tmp_path / "out")["planner"]
    assert not (planner / POLICY_FILE).exists()
    assert find_description(planner, "planner") is None


def test_the_base_of_an_export_that_is_trained_on_is_its_own_base(job, home, tmp_path):
    checkpoints, policies = job()
    checkpoints.save(2, policies, LOADER, AlarmState(), {})
    planner = export.export_policies(tmp_path / "run", tmp_path / "out")["planner"]
    assert base_model(str(planner)).name == "tiny-qwen2"
    cached = tmp_path / "models--owner--name/snapshots/abc"
    cached.mkdir(parents=True)
    (cached / "README.md").write_text("---\nlicense: apache-2.0\n---\ntext\n")
    assert dataclasses.astuple(base_model(str(cached))) == ("owner/name", "owner/name", "apache-2.0")
    assert dataclasses.astuple(base_model("owner/other")) == ("owner/other", "owner/other", None)
    (cached / "README.md").write_text("---\n{[\n---\n")
    assert base_model(str(cached)).license is None
