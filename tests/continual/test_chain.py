"""Chains without weights: what is run, what is skipped, what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from support.chain_commands import Commands, Killed
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.continual.chain import read_chain
from verl_rsim.continual.runner import run_chain
from verl_rsim.continual.stages import StageFailed, StageJob
from verl_rsim.core.policy_description import PolicyDescription, TrainedRules
from verl_rsim.core.rules import Rules
from verl_rsim.monitoring.report.report_data import find_metrics, load_steps
from verl_rsim.utils.artifact_folders import locked_folder
from verl_rsim.utils.errors import ConfigError, DataError, RsimError

CHAIN = """
planner: tiny-qwen2
reasoner: tiny-llama
recipe: tiny
stages:
  - {name: math, data: arithmetic, steps: 2}
  - {name: code, data: humaneval, steps: 3, replay: 0.25, overrides: [data.max_prompt_length=500,
      planner.rollout.prompt_length=1700]}
evaluation: {limit: 4}
"""
WHOLE = ["transfer before", "train math", "export", "transfer before,math", "train code", "export",
         "transfer before,math,code"]  # fmt: skip


@pytest.fixture
def write(home, tmp_path, monkeypatch):
    """Writes a chain's file; models and data are the session's."""
    monkeypatch.setenv("RSIM_HOME", str(home))

    def to_file(text: str = CHAIN) -> Path:
        (tmp_path / "chain.yaml").write_text(text)
        return tmp_path / "chain.yaml"

    return to_file


@pytest.fixture(scope="module")
def composed():
    """The tiny recipe's configuration, composed once."""
    from verl_rsim.config.recipes import compose_recipe

    return compose_recipe("tiny", [])


@pytest.fixture
def unchecked(monkeypatch, composed):
    """Saves the seconds that composing and checking every stage takes, where they are not what is tested."""
    monkeypatch.setattr(StageJob, "check", lambda *_: None)
    monkeypatch.setattr(StageJob, "compose", lambda *_: composed)


def go(path: Path, commands: Commands):
    console = Console(file=io.StringIO(), width=200)
    return run_chain(read_chain(path), path.parent / "out", console, commands), console.file.getvalue()


def test_a_chain_runs_to_its_end_and_again_does_nothing(write, home, tmp_path):
    commands = Commands()
    report, _ = go(write(), commands)
    assert commands.seen == WHOLE
    math, code = commands.overrides["math"], commands.overrides["code"]
    assert math["planner.model.path"] == str(home / "models/tiny-qwen2")
    assert code["planner.model.path"] == str(tmp_path / "out/stages/math/exported/planner")
    for given in (math, code):
        assert given["actor_rollout_ref.model.path"] == str(home / "models/tiny-llama")
        assert given["rsim.train"] == "[planner]"
        assert given["trainer.resume_mode"] == "auto"
    assert math["data.train_files"] == str(home / "data/arithmetic/train.parquet")
    sources = pq.read_table(code["data.train_files"])["data_source"].to_pylist()
    assert sources.count("arithmetic") == round(sources.count("humaneval") / 3)
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = Commands()
    same, shown = go(tmp_path / "chain.yaml", again)
    assert again.seen == []
    assert same == report
    assert "After code minus before the chain" in shown
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == files


def test_states_are_evaluated_by_the_first_stages_rules(write):
    overrides = ("[rsim.planner_decoding=free, rsim.max_turns=4, 'reward.sandbox_fusion.url=http://host/run_code', "
                 "+data.apply_chat_template_kwargs.enable_thinking=false]")  # fmt: skip
    commands, chain = Commands(), CHAIN[: CHAIN.index("  - {name: code")] + "evaluation: {limit: 4}\n"
    go(write(chain.replace("steps: 2}", f"steps: 2, overrides: {overrides}}}")), commands)
    assert commands.seen == ["transfer before", "train math", "export", "transfer before,math"]
    for settings in (matrix.settings for matrix in commands.matrices):
        assert (settings.rules.planner_decoding, settings.rules.max_turns) == ("free", 4)
        assert settings.fusion_url == "http://host/run_code"
    for model in (
        model for matrix in commands.matrices for model in (*matrix.planners.values(), *matrix.reasoners.values())
    ):
        assert model.template_kwargs == {"enable_thinking": False}


def test_a_planner_is_trained_on_and_evaluated_by_its_own_rules(write, home, tmp_path):
    arguments = {"enable_thinking": False}
    trained = TrainedRules(Rules(4, 20, 21, delimiter="##\n"), True, {"planner": arguments, "reasoner": arguments})
    shutil.copytree(home / "models/tiny-qwen2", tmp_path / "export")
    describe = PolicyDescription(role="planner", base_model="tiny-qwen2", step=1, rules=trained)
    describe.write(tmp_path / "export")
    chain = CHAIN[: CHAIN.index("  - {name: code")].replace("tiny-qwen2", str(tmp_path / "export"))
    commands = Commands()
    _, shown = go(write(chain), commands)
    assert all(matrix.settings.rules == trained.rules for matrix in commands.matrices)
    assert all(matrix.reasoners["reasoner"].template_kwargs == arguments for matrix in commands.matrices)
    assert commands.overrides["math"]["rsim.step_delimiter"] == "##\n"
    assert "than in training" not in shown
    commands = Commands()
    path = write(chain.replace("steps: 2}", "steps: 2, overrides: [rsim.max_turns=2]}"))
    run_chain(read_chain(path), tmp_path / "changed", console := Console(file=io.StringIO(), width=80), commands)
    assert console.file.getvalue().count("Other rules than in training: max_turns 2, trained with 4\n") == 1
    assert [matrix.settings.rules.max_turns for matrix in commands.matrices] == [2, 2]
    dataclasses.replace(describe, role="reasoner").write(tmp_path / "export")
    with pytest.raises(ConfigError, match="is a trained reasoner"):
        go(path, Commands())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("killed_at", ["train math", "train code"])
def test_a_kill_in_training_costs_what_was_not_saved(write, tmp_path, killed_at):
    first = Commands(killed_at=killed_at)
    with pytest.raises(Killed):
        go(write(), first)
    second = Commands()
    go(tmp_path / "chain.yaml", second)
    assert second.seen == WHOLE[len(first.seen) - 1 :]
    stage = killed_at.split()[1]
    merged = load_steps(find_metrics(tmp_path / "out/stages" / stage, "", tmp_path))
    assert [step["step"] for step in merged] == [1, 2 if stage == "math" else 3], "of both starts"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fails", ["transfer before", "train math", "export", "transfer before,math,code"])
def test_a_command_that_fails_ends_the_chain_and_is_run_again(write, tmp_path, fails):
    first = Commands(fails=fails)
    with pytest.raises(StageFailed, match="exit status 1"):
        go(write(), first)
    second = Commands()
    second.overrides = first.overrides
    go(tmp_path / "chain.yaml", second)
    assert first.seen[:-1] + second.seen == WHOLE


@pytest.mark.usefixtures("unchecked")
def test_a_training_that_ends_early_without_an_error_is_not_taken_for_finished(write):
    class Stops(Commands):
        def _train(self, name, given, metrics):
            super()._train(name, given | {"trainer.total_training_steps": "1"}, metrics)

    with pytest.raises(StageFailed, match="stage math: training ended with exit status 0 and 1 of 2 steps"):
        go(write(), Stops())


@pytest.mark.usefixtures("unchecked")
def test_a_chain_grows_by_stages_and_datasets(write, tmp_path):
    go(write(CHAIN.replace("- {name: code", "# - {name: code").replace("      planner", "#")), Commands())
    commands = Commands()
    go(write(CHAIN + f"datasets: {{held_out: {os.environ['RSIM_HOME']}/data/arithmetic/train.parquet}}\n"), commands)
    assert commands.seen == ["transfer before,math", *WHOLE[4:]]
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [dataset["name"] for dataset in report["datasets"]] == ["math", "code", "held_out"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 2", "steps: 4", "stages.math=.*steps 2 before, 4 now"),
        ("replay: 0.25", "replay: 0.5", "stages.code=.*replay 0.25 before, 0.5 now"),
        ("planner: tiny-qwen2", "planner: tiny-llama", r"holds another chain \(planner"),
        ("reasoner: tiny-llama", "reasoner: tiny-qwen2", r"holds another chain \(reasoner"),
        ("name: math", "name: sums", "stages.code=.*after 'math' before, 'sums' now"),
        ("recipe: tiny", "recipe: tiny\noverrides: [planner.actor.optim.lr=0.1]", "stages.math=.*overrides"),
        ("recipe: tiny", "recipe: tiny\nseed: 3", "stages.code=.*seed 0 before, 3 now"),
        ("data: arithmetic", "data: humaneval", "stages.math=.*rows"),
    ],
)
def test_what_was_trained_differently_is_never_gone_on_with(write, old, new, message):
    go(write(), Commands())
    commands = Commands()
    with pytest.raises(ConfigError, match=message):
        go(write(CHAIN.replace(old, new)), commands)
    assert commands.seen == []


@pytest.mark.usefixtures("unchecked")
def test_a_stage_without_a_checkpoint_may_still_be_changed(write):
    with pytest.raises(StageFailed):
        go(write(), Commands(fails="train code"))
    commands = Commands()
    go(write(CHAIN.replace("replay: 0.25", "replay: 0.5")), commands)
    assert commands.seen == WHOLE[4:]
    sources = pq.read_table(commands.overrides["code"]["data.train_files"])["data_source"].to_pylist()
    assert sources.count("arithmetic") == sources.count("humaneval")


@pytest.mark.usefixtures("unchecked")
def test_a_stage_whose_predecessor_was_removed_is_refused(write, tmp_path):
    go(write(), Commands())
    shutil.rmtree(tmp_path / "out/stages/math")
    with pytest.raises(ConfigError, match=r"stages.code=.*exists without math before it"):
        go(tmp_path / "chain.yaml", Commands())
    for checkpoint in (tmp_path / "out/stages/code").glob("global_step_*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(ConfigError, match="exists without math before it"):
        go(tmp_path / "chain.yaml", Commands())


@pytest.mark.usefixtures("unchecked")
def test_learned_tasks_are_replayed_and_measured_like_stages(write, tmp_path):
    text = CHAIN.replace("  - {name: math, data: arithmetic, steps: 2}\n", "").replace(
        "recipe: tiny", "recipe: tiny\nlearned: {math: arithmetic}"
    )
    commands = Commands(
        right=lambda state, dataset, number: number < (1 if (state, dataset) == ("code", "math") else 3)
    )
    report, _ = go(write(text), commands)
    assert commands.seen == ["transfer before", "train code", "export", "transfer before,code"]
    values = {measure.name: measure.estimate.mean for measure in report.measures}
    assert values["backward transfer"] == pytest.approx(-0.5)
    assert values["forgetting"] == pytest.approx(0.5)
    assert [(change.dataset, change.since) for change in report.since_learned] == [("math", "before")]


@pytest.mark.usefixtures("unchecked")
def test_one_process_at_a_time(write, tmp_path):
    path = write()
    with locked_folder(tmp_path / "out"), pytest.raises(RsimError, match="another process"):
        go(path, Commands())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (CHAIN, "[1]", "must hold the keys planner, reasoner and stages"),
        ("planner: tiny-qwen2", "", "planner=None: name the model to train"),
        ("planner: tiny-qwen2", "planner: [a]", r"planner=\['a'\]: must be text"),
        ("reasoner: tiny-llama", "", "reasoner=None: is missing"),
        ("evaluation:", "evaluations:", "evaluations=.*unknown key"),
        ("steps: 2}", "step: 2}", r"stages\[0\].step=2: unknown key"),
        (", steps: 2}", "}", r"stages\[0\].steps=None: is missing"),
        ("steps: 2}", "steps: 0}", "stages.math.steps=0"),
        ("steps: 2}", "steps: 2.5}", "stages.math.steps=2.5"),
        ("steps: 2}", "steps: 2, replay: 0.5}", "stages.math.replay=0.5: no task comes before"),
        ("replay: 0.25", "replay: 1", "stages.code.replay=1: must be a share"),
        ("replay: 0.25", "replay: -0.1", "stages.code.replay=-0.1"),
        ("replay: 0.25", "replay: true", "stages.code.replay=True"),
        ("replay: 0.25", "replay: .nan", "stages.code.replay=nan"),
        ("name: code", "name: math", "the name of another task"),
        ("name: code", "name: before", "a reserved name"),
        ("name: code", "name: alone", "a reserved name"),
        ("name: code", "name: a/b", "a name becomes a folder"),
        ("name: code", "name: 1", "a name becomes a folder"),
        ("recipe: tiny", "learned: {math: arithmetic}", "the name of another task"),
        ("recipe: tiny", "datasets: {math: arithmetic}", "the name of another task"),
        ("recipe: tiny", "learned: [arithmetic]", "learned=.*must map names to data"),
        ("recipe: tiny", "seed: 0.5", "seed=0.5"),
        ("recipe: tiny", "overrides: data.train_batch_size=2", "must be a list of hydra overrides"),
        ("recipe: tiny", "overrides: [trainer.resume_mode=disable]", "the chain sets trainer.resume_mode"),
        ("recipe: tiny", "overrides: [+data.train_files=x]", "use its key data"),
        ("limit: 4", "planners: {a: b}", "evaluation.planners=.*the chain sets it"),
        (CHAIN[CHAIN.index("stages:") :], "stages: []", "list at least one"),
        (CHAIN[CHAIN.index("stages:") :], "stages: code", "must be a list"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path, old, new, message):
    assert old in CHAIN
    (tmp_path / "c.yaml").write_text(CHAIN.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_chain(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("data: humaneval", "data: nothing", "stages.code.data='nothing': there is no train.parquet"),
        ("replay: 0.25", "replay: 0.9", "takes 288 of math's training rows, .* has 32: lower replay to 0.5 at most"),
        ("planner: tiny-qwen2", "planner: /no/where", "planner='/no/where': there is no model here"),
        ("reasoner: tiny-llama", "reasoner: http://x", "reasoner='http://x': training needs the weights"),
        ("limit: 4", "sampels: 4", "sampels=4: unknown key"),
        ("limit: 4", "rules: {turns: 4}", "rules.turns=4: unknown key"),
        ("recipe: tiny", "recipe: nothing", "recipe='nothing': choose one of"),
        (
            "recipe: tiny",
            "recipe: tiny\noverrides: [data.train_bach_size=2]",
            "stages.math=.*Could not override 'data.train_bach_size'",
        ),
        ("recipe: tiny", "recipe: tiny\noverrides: [trainer.save_freq=-1]", "save_freq=-1: a stage ends with a check"),
        ("recipe: tiny", "recipe: tiny\noverrides: [rsim.max_turns=0]", "rsim.max_turns"),
        ("data.max_prompt_length=500", "data.train_batch_size=1000", "data.train_batch_size=1000: the training set"),
        ("recipe: tiny", "recipe: tiny\noverrides: [rsim.schedule=follower_first]", "nothing is trained"),
        ("recipe: tiny", "recipe: tiny\ndatasets: {held_out: nothing}", "data='nothing': there is no file"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_before_anything_runs(write, old, new, message):
    commands = Commands()
    assert old in CHAIN
    with pytest.raises((ConfigError, DataError), match=message):
        go(write(CHAIN.replace(old, new)), commands)
    assert commands.seen == []


def test_the_command_takes_the_planner_from_the_command_line(write, monkeypatch, tmp_path):
    commands = Commands()
    monkeypatch.setattr("verl_rsim.training.launch.run", commands)
    path = write(CHAIN.replace("planner: tiny-qwen2\n", ""))
    done = CliRunner().invoke(app, ["chain", str(path), "--planner", "tiny-qwen2", "--out", str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    assert commands.seen == WHOLE
    assert "backward transfer" in (tmp_path / "o/report.md").read_text()
