"""Evaluation with real engines on the CPU: vLLM in the process and behind HTTP, tiny models of two families."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from verl_rsim.dialogue import Request
from verl_rsim.evaluate import Planner, Reasoner, Sampling
from verl_rsim.evaluate.conditions import BASE_PLANNER, CONTROLS, PLANNER
from verl_rsim.evaluate.records import RECORDS, read_records

pytestmark = pytest.mark.e2e

ENVIRONMENT = {
    **os.environ,
    "VERL_PLATFORM": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
BINARIES = Path(sys.executable).parent
SERVE = """
from verl_rsim.evaluate.vllm_engine import prepare_process
prepare_process()
from vllm.entrypoints.cli.main import main
main()
"""  # `vllm serve`, which asks for a distribution named vllm, with the CPU wheel


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process: subprocess.Popen) -> None:
    """End a process and all below it."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.fixture(scope="module")
def served(home, tmp_path_factory):
    """The URL of a `vllm serve` of the tiny reasoner."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-c", SERVE, "serve", str(home / "models/tiny-llama"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    command += ["--logprobs-mode", "processed_logprobs"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log.open("w"), stderr=subprocess.STDOUT)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.5)
        yield url
    finally:
        end(process)


def test_the_engine_in_the_process_and_the_one_behind_http_continue_alike(home, served):
    here = Reasoner.from_pretrained(home / "models/tiny-llama", context=2048)
    there = Reasoner.from_pretrained(served)
    assert there.codec.encode("The answer is 42.") == here.codec.encode("The answer is 42.")
    assert there.engine.context == 2048
    prompts = [here.codec.chat([{"role": "user", "content": text}]) for text in ("What is 2 + 3?", "Sum up.", "Let me")]
    requests = [Request(prompt, 24, ("\n\n",), turn=i) for i, prompt in enumerate(prompts)]
    requests += [Request(prompt, 1, allowed_ids=here.codec.label_ids()) for prompt in prompts]

    async def both():
        one, other = here.sampler(Sampling()), there.sampler(Sampling())
        try:
            return [(await one(request), await other(request)) for request in requests]
        finally:
            await here.close()
            await there.close()

    for request, (one, other) in zip(requests, asyncio.run(both()), strict=True):
        assert one.token_ids == other.token_ids
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
        if request.allowed_ids:
            assert one.token_ids[0] in request.allowed_ids


def test_an_endpoint_with_another_tokenizer_or_without_labels_is_refused(home, served):
    from verl_rsim.errors import EngineError

    with pytest.raises(EngineError, match="encodes text otherwise"):
        Planner.from_pretrained(served, tokenizer=str(home / "models/tiny-qwen2"))


def test_all_controls_killed_in_the_middle_and_resumed(home, tmp_path):
    models, out = home / "models", tmp_path / "out"
    command = [str(BINARIES / "verl-rsim"), "eval", "--planner", str(models / "tiny-qwen2")]
    command += ["--base-planner", str(models / "tiny-qwen2"), "--reasoner", str(models / "tiny-llama")]
    command += ["--data", "arithmetic", "--limit", "2", "--samples", "2", "--temperature", "1.0", "--out", str(out)]
    command += ["--max-turns", "3", "--max-step-tokens", "24", "--max-answer-tokens", "24", "--concurrency", "8"]
    environment = {**ENVIRONMENT, "RSIM_HOME": str(home)}
    total = 2 * 2 * len((*CONTROLS, BASE_PLANNER, PLANNER))

    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while not (out / RECORDS).is_file() or len((out / RECORDS).read_bytes().splitlines()) < total // 4:
        assert first.poll() is None, first.stdout.read().decode()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engines = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = (out / RECORDS).read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert psutil.wait_procs(engines, timeout=30)[1] == []
    assert len(before.splitlines()) < total

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert (out / RECORDS).read_bytes().startswith(before)
    records = read_records(out)
    assert len(records) == len({record.key for record in records}) == total
    assert all(record.planner_tokens == len(record.strategies) for record in records if "planner" in record.condition)
    pairs = {(r.question, r.sample): r for r in records if r.condition == PLANNER}
    for record in records:
        if record.condition == BASE_PLANNER:  # the same weights and seeds
            assert record.strategies[0] == pairs[record.question, record.sample].strategies[0]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["asked"]["exact"] is True
    assert "Accuracy with 95 % confidence intervals" in done.stdout
    assert f"eval: {len(before.splitlines())}/{total}" not in done.stdout
    assert f"eval: {total}/{total}" in done.stdout
    again = subprocess.run([*command[:1], "results", str(out)], capture_output=True, text=True, check=True, timeout=60)
    assert "self-reflection" in again.stdout
