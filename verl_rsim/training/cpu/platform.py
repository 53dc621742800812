"""Registers the CPU as a platform of verl; verl 0.9.1 ships cuda, npu and rocm.

The platform is chosen by ``VERL_PLATFORM=cpu`` and never by auto-detection. Ray counts logical "GPU" slots here: start
the job with ``ray_kwargs.ray_init.num_gpus=N``. Nothing is pinned to a device.
"""

from __future__ import annotations

import types
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _device_module() -> types.ModuleType:
    """Returns ``torch.cpu`` extended by what verl calls on ``torch.cuda``: memory counters, RNG state, device name."""
    module = types.ModuleType("verl_rsim_torch_cpu")
    module.__dict__.update({name: getattr(torch.cpu, name) for name in dir(torch.cpu) if not name.startswith("__")})

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def zero(*_: Any, **__: Any) -> int:
        return 0

    def no_memory_info(*_: Any, **__: Any) -> tuple[int, int]:
        return 0, 0

    def device_name(*_: Any, **__: Any) -> str:
        return "cpu"

    def get_rng_state(*_: Any, **__: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(state: torch.Tensor, *_: Any, **__: Any) -> None:
        torch.set_rng_state(state)  # without the device argument of torch.cuda's function

    module.__dict__.update(
        empty_cache=nothing,
        ipc_collect=nothing,
        reset_peak_memory_stats=nothing,
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
        get_rng_state=get_rng_state,
        set_rng_state=set_rng_state,
        memory_allocated=zero,
        memory_reserved=zero,
        max_memory_allocated=zero,
        max_memory_reserved=zero,
        mem_get_info=no_memory_info,
        get_device_name=device_name,
        current_device=device_name,
        set_device=nothing,
    )
    return module


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """Implements verl's device interface for a host without an accelerator."""

    _module = _device_module()

    device_name = "cpu"
    vendor_name = "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # auto-detection must never pick the CPU unasked

    def current_device(self) -> Any:
        return "cpu"  # verl calls tensor.to(get_device_id()), where an index would mean cuda

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str):
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"  # verl's check of resources accepts GPU and NPU only

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # weights are passed through shared memory

    def cudart(self) -> Any:
        return None
