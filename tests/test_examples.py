"""Every example runs, and is short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_rsim.continual.chain import read_chain
from verl_rsim.continual.stages import plan
from verl_rsim.data.prepare import prepare
from verl_rsim.settings import parse_config

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_one_interaction(home):
    models = [str(home / "models" / name) for name in ("tiny-qwen2", "tiny-llama")]
    command = [sys.executable, str(EXAMPLES / "one_interaction.py"), *models, "What is 2 + 3?"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ended by: " in done.stdout


@pytest.mark.e2e
def test_plan_and_answer(home):
    models = [str(home / "models" / name) for name in ("tiny-qwen2", "tiny-llama")]
    command = [sys.executable, str(EXAMPLES / "plan_and_answer.py"), *models, "What is 2 + 3?"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ended by: " in done.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_chains(name, tmp_path, monkeypatch):
    """Names, rows for the replay, and settings; the models are not looked for."""
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    for source in ("arithmetic", "humaneval", "finance_synthetic"):
        prepare(tmp_path / "data" / source, source, train=120, test=8)
    chain = read_chain(EXAMPLES / name, planner="planner")
    for job in plan(chain, tmp_path / "out"):
        config = job.compose("planner", "reasoner")
        assert parse_config(OmegaConf.to_container(config.rsim, resolve=True)).frozen == {"reasoner"}
        assert config.trainer.total_training_steps == job.stage.steps


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) < 60 for path in EXAMPLES.glob("*.py"))
