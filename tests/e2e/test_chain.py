"""A chain of two stages through the real stack: its process is killed in the second, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest

from verl_rsim.checkpoint import STATE

pytestmark = pytest.mark.e2e

CHAIN = """
planner: tiny-qwen2
reasoner: tiny-llama
recipe: tiny
overrides: [trainer.save_freq=1, trainer.test_freq=-1, trainer.val_before_train=false, planner.actor.optim.lr=0.01]
stages:
  - {name: math, data: arithmetic, steps: 1}
  - name: code
    data: humaneval
    steps: 3
    replay: 0.25
    overrides: [data.max_prompt_length=500, data.filter_overlong_prompts=true, planner.rollout.prompt_length=1650]
evaluation: {limit: 2, controls: []}
"""


def test_a_chain_killed_in_its_second_stage_goes_on_and_then_has_nothing_to_do(home, tmp_path):
    (tmp_path / "chain.yaml").write_text(CHAIN)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "verl_rsim", "chain", str(tmp_path / "chain.yaml"), "--out", str(out)]
    environment = {**os.environ, "RSIM_HOME": str(home), "VLLM_CPU_KVCACHE_SPACE": "1", "RSIM_E2E": "chain"}

    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 600
    while not (out / "stages/code/global_step_1" / STATE).is_file():
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-5000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 30
    while left := of_the_chain():
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    math = (out / "stages/math/exported/planner/model.safetensors").read_bytes()

    second = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert second.returncode == 0, (second.stdout + second.stderr)[-5000:]
    assert "Resumed both policies and the data position" in second.stdout
    assert "stage 1/2" not in second.stdout
    assert (out / "stages/math/exported/planner/model.safetensors").read_bytes() == math
    assert (out / "stages/code/exported/planner/model.safetensors").read_bytes() != math
    assert set(pq.read_table(out / "mixes/code/train.parquet")["data_source"].to_pylist()) == {
        "arithmetic",
        "humaneval",
    }
    steps = [json.loads(line)["step"] for line in (out / "stages/code/metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [1, 2, 3]
    report = json.loads((out / "report.json").read_text())
    assert report["states"] == ["before", "math", "code"]
    assert {found["name"] for found in report["measures"]} >= {"backward transfer", "forgetting"}

    began = time.monotonic()
    third = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert third.returncode == 0
    assert "backward transfer" in third.stdout
    assert "stage" not in third.stdout.partition("Accuracy")[0]
    assert time.monotonic() - began < 60


def of_the_chain() -> list[str]:
    """Every living process that the chain's first start made."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RSIM_E2E") == "chain" and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:80])
        except psutil.Error:
            continue
    return found
