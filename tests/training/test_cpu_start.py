"""What a job on a CPU does not import, and how vLLM's engine starts its workers there; each in a fresh process."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pickle
import subprocess
import sys
import time

import psutil
import pytest
from ray import cloudpickle

from verl_rsim.training.cpu.light_server import light_actor_class

pytestmark = pytest.mark.slow


def run(code: str, **environment: str) -> list[str]:
    """Returns the last line that a program prints, as words."""
    env = {**os.environ, "VERL_PLATFORM": "cpu", "VLLM_CPU_OMP_THREADS_BIND": "nobind", **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1].split()


def test_trainer_workers_and_agent_loop_import_no_vllm():
    code = """
import sys
import verl_rsim.training.agent_loop, verl_rsim.training.trainer, verl_rsim.training.workers
from verl.checkpoint_engine import CheckpointEngineRegistry, HCCLCheckpointEngine
print("vllm" in sys.modules, HCCLCheckpointEngine)
"""
    assert run(code) == ["False", "None"]


def test_names_that_verl_takes_from_vllm_are_there_when_asked_for():
    code = """
import verl
from verl.third_party.vllm import LLM, VLLM_SLEEP_LEVEL, get_version, parallel_state
print(LLM.__name__, parallel_state.__name__, VLLM_SLEEP_LEVEL, get_version("vllm"), get_version("no-such-package"))
"""
    assert run(code) == ["LLM", "vllm.distributed.parallel_state", "2", "0.27.1+cpu", "None"]


def test_the_load_balancer_works_in_a_process_without_verl(tmp_path):
    code = """
import sys, verl.workers.rollout.router
from ray import cloudpickle
open(sys.argv[1], "wb").write(cloudpickle.dumps(verl.workers.rollout.router.GlobalRequestLoadBalancer))
print("written")
"""
    path = tmp_path / "balancer"
    assert run(code.replace("sys.argv[1]", repr(str(path)))) == ["written"]
    code = f"""
import sys, pickle, ray
balancer = pickle.load(open({str(path)!r}, "rb"))(servers={{"a": "the server"}})
print(*balancer.acquire_server("question"), {{"verl", "torch", "vllm"}} & set(sys.modules))
"""
    assert run(code) == ["a", "the", "server", "set()"]


SERVER = """
import asyncio, inspect

class Server:
    def __init__(self, rank: int, *, name: str = "a"):
        self.rank, self.name, self.engine = rank, name, "the engine"
    def address(self) -> str:
        return f"{self.name}{self.rank}"
    async def generate(self, prompt: "Prompt", n: int = 1) -> str:
        return prompt * n
"""


def test_a_server_is_imported_in_its_own_process_alone(tmp_path, monkeypatch):
    (tmp_path / "server_module.py").write_text(SERVER)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("server_module")
    pickled = cloudpickle.dumps(light_actor_class(module.Server))
    monkeypatch.delitem(sys.modules, "server_module")
    light = pickle.loads(pickled)
    parameters = inspect.signature(light.generate).parameters
    assert (light.__name__, list(parameters)) == ("Server", ["self", "prompt", "n"])
    assert [inspect.iscoroutinefunction(method) for method in (light.generate, light.address)] == [True, False]
    assert "server_module" not in sys.modules
    server = light(3, name="b")
    assert (server.address(), server.engine, asyncio.run(server.generate("x", n=2))) == ("b3", "the engine", "xx")
    assert "server_module" in sys.modules


def test_the_class_of_verls_servers_is_loaded_without_vllm(tmp_path):
    code = """
import sys, verl
from ray import cloudpickle
from verl.workers.rollout.vllm_rollout import vllm_async_server as servers
servers.RolloutReplica.__init__ = lambda self, *args, **kwargs: None
actor_class = servers.vLLMReplica(0, None, None).server_class
open(sys.argv[1], "wb").write(cloudpickle.dumps(actor_class.__ray_metadata__.modified_class))
print("written")
"""
    path = tmp_path / "server"
    assert run(code.replace("sys.argv[1]", repr(str(path)))) == ["written"]
    code = f"""
import sys, pickle, inspect, ray
server = pickle.load(open({str(path)!r}, "rb"))
assert inspect.iscoroutinefunction(server.generate) and "request_id" in inspect.signature(server.generate).parameters
print(server.__name__, {{"verl", "torch", "vllm"}} & set(sys.modules))
"""
    assert run(code) == ["vLLMHttpServer", "set()"]


START_METHOD = """
import multiprocessing, threading, time
from verl_rsim.vllm_plugin import load
multiprocessing.current_process().name = {process!r}
load()
from vllm.v1.executor import multiproc_executor
if {thread}:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(multiproc_executor.get_mp_context().get_start_method())
"""


@pytest.mark.parametrize(
    ("process", "thread", "environment", "method"),
    [
        ("EngineCore", False, {}, "fork"),
        ("EngineCore_DP0", False, {}, "fork"),
        ("MainProcess", False, {}, "spawn"),  # e.g. a server: a Ray actor with threads
        ("EngineCore", True, {}, "spawn"),
        ("EngineCore", False, {"VLLM_CPU_OMP_THREADS_BIND": "auto"}, "spawn"),
        ("EngineCore", False, {"VERL_PLATFORM": ""}, "spawn"),
    ],
)
def test_an_engine_forks_its_workers_where_that_is_safe(process, thread, environment, method):
    code = START_METHOD.format(process=process, thread=thread)
    # What vLLM's CPU platform sets when it reads the configuration.
    assert run(code, VLLM_WORKER_MULTIPROC_METHOD="spawn", **environment) == [method]


ENGINE = """
import multiprocessing, os, time, torch
from verl_rsim.vllm_plugin import load
from vllm.v1.executor import multiproc_executor

def worker_main():
    torch.set_num_threads(2)
    torch.ones(1 << 22).add(1).sum()  # OpenMP starts threads in the worker
    print("worker", os.getpid(), flush=True)
    time.sleep(600)

multiproc_executor.WorkerProc.worker_main = staticmethod(worker_main)
multiprocessing.current_process().name = "EngineCore"
load()
multiproc_executor.get_mp_context().Process(target=multiproc_executor.WorkerProc.worker_main).start()
time.sleep(600)
"""


def test_a_forked_worker_computes_and_dies_with_its_engine():
    env = {**os.environ, "VERL_PLATFORM": "cpu", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    env["RSIM_ENGINES_DIE_WITH_PARENT"] = "1"
    engine = subprocess.Popen([sys.executable, "-c", ENGINE], stdout=subprocess.PIPE, text=True, env=env)
    try:
        worker = None
        for line in engine.stdout:
            if line.startswith("worker "):
                worker = psutil.Process(int(line.split()[1]))
                break
        assert worker is not None
        assert worker.ppid() == engine.pid
    finally:
        engine.kill()
        engine.wait()
    deadline = time.monotonic() + 10
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlives its engine"
        time.sleep(0.1)
