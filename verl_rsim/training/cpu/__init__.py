"""Runs verl and vLLM on a machine without an accelerator. Active only with ``VERL_PLATFORM=cpu``."""

import os

DEFAULTS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two servers and two trainers share the cores; pinned threads would collide
    "RAY_prestart_worker_first_driver": "0",  # Ray would start a worker per core that no process of the job can use
}
"""Environment variables of vLLM's CPU backend and of Ray, set unless the user has set them."""


def is_chosen() -> bool:
    """Returns True if the user chose the CPU platform for this process."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def set_defaults() -> None:
    """Sets the variables in :data:`DEFAULTS`; processes started by this one inherit them."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
