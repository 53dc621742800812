"""Registration with verl and vLLM, each in a fresh process: verl hides a plugin that raises."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytestmark = pytest.mark.slow


def run(code: str, platform: str = "cpu") -> str:
    env = {**os.environ, "VERL_PLATFORM": platform}
    if not platform:
        del env["VERL_PLATFORM"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


REGISTERED = """
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.workers.engine import EngineRegistry
import verl.utils.device
assert callable(get_trainer_cls("rsim"))
assert "rsim" in _agent_loop_registry
print(*(get_reward_manager_cls(name).__name__[4:-13] for name in ("rsim", "rsim_math", "rsim_code")))
print(EngineRegistry.get_engine_cls("strategy_policy", "fsdp2").__name__)
print(verl.utils.device.get_device_name())
"""


@pytest.mark.parametrize("first", ["import verl", "import verl_rsim", "import verl_rsim.plugin"])
def test_everything_is_registered_whatever_is_imported_first(first):
    assert run(f"{first}\n{REGISTERED}").splitlines()[-3:] == [" Math Code", "StrategyPolicyEngine", "cpu"]


def test_importing_verl_imports_no_trainer():
    code = "import verl, sys; print([m for m in sys.modules if m.startswith('verl_rsim.')])"
    loaded = run(code)
    assert "verl_rsim.plugin" in loaded
    for name in ("trainer", "policy", "agent_loop", "workers", "strategy_engine"):
        assert f"verl_rsim.training.{name}" not in loaded


def test_without_the_cpu_platform_nothing_is_patched():
    code = """
import importlib.metadata, torch.distributed as dist
before = (importlib.metadata.version, dist.init_process_group)
import verl_rsim.training.cpu.patches as patches
from verl.workers.engine import EngineRegistry
import verl_rsim.plugin
from torch.distributed.fsdp import _init_utils
assert before == (importlib.metadata.version, dist.init_process_group)
assert _init_utils._check_module_states_for_sync_module_states.__module__ == _init_utils.__name__
assert "cpu" not in EngineRegistry._engines["language_model"]["fsdp2"]
patches.make_weights_reloadable()
from vllm.model_executor.layers import utils
print(utils.dispatch_cpu_unquantized_gemm.__module__)
"""
    assert run(code, platform="").strip().endswith("vllm.model_executor.layers.utils")


def test_the_vllm_distribution_has_a_name():
    code = "import verl_rsim.plugin, importlib.metadata as m; print(m.version('vllm'))"
    assert run(code).strip() == "0.27.1+cpu"


def test_gloo_is_asked_for_once():
    code = """
import verl_rsim.plugin, os, torch.distributed as dist
os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
from verl.utils.distributed import initialize_global_process_group_ray
initialize_global_process_group_ray()
print(dist.get_backend())
"""
    assert run(code).strip() == "cpu:gloo"


def test_a_reference_policy_stays_in_main_memory():
    code = """
import os, torch, torch.distributed as dist, verl.workers.engine
from torch.distributed.fsdp import fully_shard
from verl.workers.engine.fsdp import transformer_impl
os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
dist.init_process_group("cpu:gloo")
layer = torch.nn.Linear(2, 2)
policy = transformer_impl.CPUOffloadPolicy(pin_memory=True)
fully_shard(layer, **({"offload_policy": policy} if policy else {}))
print(layer(torch.ones(1, 2)).shape)
"""
    assert "torch.Size([1, 2])" in run(code)


def test_a_reloaded_weight_is_the_one_that_vllm_uses():
    code = """
import torch
from verl_rsim.vllm_plugin import load
load()
from vllm.model_executor.layers import utils
layer = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
layer.requires_grad_(False)
utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
x = torch.randn(3, 64, dtype=torch.bfloat16)
before = utils.cpu_unquantized_gemm(layer, x, layer.weight, None)
layer.weight.data.mul_(2)
torch.testing.assert_close(utils.cpu_unquantized_gemm(layer, x, layer.weight, None), 2 * before)
print("reloaded")
"""
    assert "reloaded" in run(code)


def test_vllms_processes_sleep_while_they_wait():
    code = """
import time, zmq
from verl_rsim.vllm_plugin import load
load()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
writer, reader = (SpinCondition(reads, zmq.Context.instance(), "inproc://told") for reads in (False, True))
start, busy = time.monotonic(), time.process_time()
while time.monotonic() - start < 1:
    reader.wait(5000)
print(time.process_time() - busy < 0.3, time.monotonic() - start < 3)
"""
    assert run(code).endswith("True True\n"), "no core is used; a lost word costs 0.1 s"


@pytest.mark.parametrize(
    ("version", "ours", "set_before", "then"),
    [
        ("0.24.0", "RSIM_JOB", None, "0"),
        ("0.26.1+cu130", "RSIM_ENGINES_DIE_WITH_PARENT", None, "0"),
        ("0.24.0", "RSIM_JOB", "1", "1"),
        ("0.27.0", "RSIM_JOB", None, "None"),
        ("0.24.0", "ANOTHERS_JOB", None, "None"),
    ],
)
def test_the_model_runner_that_loses_labels_is_avoided(monkeypatch, version, ours, set_before, then):
    """With the version verl asks for on a GPU; what the user set stays, and so do the jobs of others."""
    for inherited in ("RSIM_JOB", "RSIM_ENGINES_DIE_WITH_PARENT"):
        monkeypatch.delenv(inherited, raising=False)
    monkeypatch.setenv(ours, "1")
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    if set_before:
        monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", set_before)
    code = f"""
import os, sys, types
sys.modules["vllm"] = types.ModuleType("vllm")
sys.modules["vllm"].__version__ = "{version}"
from verl_rsim.vllm_plugin import load
load()
print(os.environ.get("VLLM_USE_V2_MODEL_RUNNER"))
"""
    assert run(code, platform="").strip() == then


LEAVING = """
import verl
from hydra import compose, initialize_config_module
from verl.utils.config import validate_config
from verl_rsim.monitoring.watchdog import ray_shutdown

ray_shutdown.install_timeouts = lambda seconds: print("leaves in time")
with initialize_config_module("{module}", version_base=None):
    config = compose("{name}", overrides={overrides})
validate_config(config=config, use_reference_policy=False, use_critic=False)
print("valid")
"""


def test_the_driver_of_a_job_of_two_policies_leaves_ray_in_time(home, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(home))
    ours = LEAVING.format(module="verl_rsim.recipes.tiny", name="tiny", overrides=[])
    assert [line for line in run(ours).splitlines() if line in ("leaves in time", "valid")] == [
        "leaves in time",
        "valid",
    ]
    batches = ["actor_rollout_ref.actor.use_dynamic_bsz=true", "data.train_batch_size=256"]
    stock = LEAVING.format(module="verl.trainer.config", name="ppo_trainer", overrides=batches)
    assert [line for line in run(stock).splitlines() if line in ("leaves in time", "valid")] == ["valid"]


def test_entry_points():
    assert {e.value for e in entry_points(group="verl.plugins") if e.name == "rsim"} == {"verl_rsim.plugin"}
    assert {e.value for e in entry_points(group="vllm.general_plugins") if e.name == "rsim"} == {
        "verl_rsim.vllm_plugin:load"
    }
