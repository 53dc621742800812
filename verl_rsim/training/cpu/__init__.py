"""Running verl and vLLM on a machine without an accelerator. Active only when ``VERL_PLATFORM=cpu``."""

import os

DEFAULTS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two servers and two trainers share the cores
}
"""Environment of vLLM's CPU backend, where the user has not set it."""


def is_chosen() -> bool:
    """Whether the user chose the CPU platform for this process."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def set_defaults() -> None:
    """Fill in :data:`DEFAULTS`; the processes that this one starts inherit them."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
