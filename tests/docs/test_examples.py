"""Every example runs, and is short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.paths import ROOT

from verl_rsim.config.schema import parse_config
from verl_rsim.continual.chain import read_chain
from verl_rsim.continual.stages import plan_jobs
from verl_rsim.data.prepare import prepare

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
SHELLCHECK = Path(sys.executable).parent / "shellcheck"


def test_one_episode(home):
    models = [str(home / "models" / name) for name in ("tiny-qwen2", "tiny-llama")]
    command = [sys.executable, str(EXAMPLES / "one_episode.py"), *models, "What is 2 + 3?"]
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
    for job in plan_jobs(chain, tmp_path / "out"):
        config = job.compose("planner", "reasoner")
        assert parse_config(OmegaConf.to_container(config.rsim, resolve=True)).frozen == {"reasoner"}
        assert config.trainer.total_training_steps == job.stage.steps


STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do case $1 in --overlap) shift ;; *) shift 2 ;; esac; done; exec "$@"',
    "scontrol": "printf 'first\\nsecond\\nthird\\n'",
    "python": '[[ $1 == -c ]] && echo 10.0.0.1 || echo "wait ${*:2}" >> calls',
    "ray": 'echo "ray $*" >> calls; exec sleep 60',
    "verl-rsim": 'until [[ $(grep -c ^ray calls) == 3 ]]; do sleep 0.1; done; echo "verl-rsim $*" >> calls; exit 3',
}


def test_the_slurm_script_starts_a_cluster_and_the_job_on_it(tmp_path):
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "...", "SLURM_CPUS_PER_TASK": "64", "SLURM_GPUS_ON_NODE": "8"}
    command = ["bash", str(EXAMPLES / "cluster/slurm.sh"), "multi_node/two_nodes", "trainer.nnodes=3"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}
    done = subprocess.run(command, cwd=tmp_path, env=environment, timeout=30)
    assert done.returncode == 3, "the job's exit status, and the nodes are given back"
    calls = (tmp_path / "calls").read_text().splitlines()
    resources = "--num-cpus 64 --num-gpus 8"
    started = [call for call in calls if call.startswith("ray")]
    joined = f"ray start --block --address 10.0.0.1:6379 {resources}"
    first = f"ray start --block --head --node-ip-address 10.0.0.1 --port 6379 {resources}"
    assert sorted(started) == [joined, joined, first]
    assert [call for call in calls if call not in started] == [
        "wait 10.0.0.1:6379 1 300",
        "wait 10.0.0.1:6379 3 300",
        "verl-rsim train multi_node/two_nodes trainer.nnodes=3 ++ray_kwargs.ray_init.address=10.0.0.1:6379",
    ]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("**/*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound(script):
    assert not subprocess.run([SHELLCHECK, script], capture_output=True, text=True).stdout


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) < 60 for path in EXAMPLES.glob("*.py"))
