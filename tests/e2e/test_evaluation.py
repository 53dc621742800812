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
import openai
import psutil
import pytest

from verl_rsim.core.controls import BASE_PLANNER, CONTROLS, PLANNER
from verl_rsim.core.episode import Request
from verl_rsim.evaluation import Planner, Reasoner, Rules, Sampling, play
from verl_rsim.evaluation.records import RECORDS, read_records
from verl_rsim.serving.server import Server, bind
from verl_rsim.serving.service import Service

pytestmark = pytest.mark.e2e

ENVIRONMENT = {
    **os.environ,
    "VERL_PLATFORM": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
BINARIES = Path(sys.executable).parent
SERVE = """
from verl_rsim.evaluation.engines.vllm import prepare_process
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

    planner = Planner.from_pretrained(served)

    async def both():
        one, other = here.sampler(Sampling()), there.sampler(Sampling())
        try:
            for sampler in (one, other):
                await check_told(sampler, requests[0])
            pairs = [(await one(request), await other(request)) for request in requests]
            await check_served(planner, here)
            return pairs
        finally:
            for player in (planner, here, there):
                await player.close()

    for request, (one, other) in zip(requests, asyncio.run(both()), strict=True):
        assert one.token_ids == other.token_ids
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
        if request.allowed_ids:
            assert one.token_ids[0] in request.allowed_ids


async def check_told(sampler, request: Request) -> None:
    """Who watches an engine is told the very tokens it returns, as they come."""
    told = []
    sampler.on_tokens = told.append
    generation = await sampler(request)
    sampler.on_tokens = None
    assert tuple(token for ids in told for token in ids) == generation.token_ids
    assert len(told) > 1


async def check_served(planner: Planner, reasoner: Reasoner) -> None:
    """Serving gives evaluation's token ids, and a client that leaves ends vLLM's work."""
    rules, question = Rules(3, 24, 24), "What is 2 + 3?"
    with bind("127.0.0.1", 0) as taken:
        service = Service(planner, reasoner, rules)
        server = Server(service)
        task = asyncio.create_task(server.serve([taken]))
        while not server.started:
            await asyncio.sleep(0.01)
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", api_key="none"
        ) as client:
            asked = {"model": "rsim", "messages": [{"role": "user", "content": question}], "seed": 5}
            asked |= {"extra_body": {"rsim": {"return_token_ids": True}}}
            for temperature in (0.0, 1.0):
                episode = await play(question, planner, reasoner, rules, Sampling(temperature), "5/0")
                answer = await client.chat.completions.create(**asked, temperature=temperature)
                stream = await client.chat.completions.create(**asked, temperature=temperature, stream=True)
                chunks = [chunk.choices[0] async for chunk in stream]
                for choice in (answer.choices[0], chunks[-1]):
                    got = [(tuple(turn["choice_ids"]), tuple(turn["step_ids"])) for turn in choice.rsim["turns"]]
                    assert got == [(turn.choice.token_ids, turn.step.token_ids) for turn in episode.turns]
                text = "".join(choice.delta.content or "" for choice in chunks)
                assert text == answer.choices[0].message.content
            async with await client.chat.completions.create(**asked, n=4, stream=True) as leaving:
                await anext(aiter(leaving))
        requests = reasoner.engine._llm.output_processor.request_states
        for _ in range(100):
            if service.admission.active == 0 and not requests:
                break
            await asyncio.sleep(0.05)
        assert (service.admission.active, requests) == (0, {})
        server.should_exit = True
        await task


def test_an_endpoint_with_another_tokenizer_or_without_labels_is_refused(home, served):
    from verl_rsim.utils.errors import EngineError

    with pytest.raises(EngineError, match="encodes text differently"):
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
