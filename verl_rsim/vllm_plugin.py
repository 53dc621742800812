"""Prepares vLLM's processes for verl-rsim; vLLM calls :func:`load` in each (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import platform
import signal

from packaging.version import InvalidVersion, Version

from verl_rsim.training.cpu import patches
from verl_rsim.utils.environment import DIE_WITH_PARENT, OWN_JOB

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def load() -> None:
    """Applies all preparations: the model runner, the engine's death with its server, and the patches for CPUs."""
    _select_model_runner()
    _die_with_parent()
    patches.make_weights_reloadable()
    patches.wait_without_spinning()
    patches.fork_workers(_die_with_parent)


def _select_model_runner() -> None:
    """Makes vLLM before 0.27 use its first model runner, unless the user has set ``VLLM_USE_V2_MODEL_RUNNER``.

    The second runner, the default there for Llama, Mistral and Qwen3, applies ``allowed_token_ids`` in a kernel with a
    race (vLLM's pull request 46245): some of the nine labels may be lost, and servers then sample from another
    distribution than the one that is trained. 0.27 is fixed; earlier versions were not examined one by one.
    Remove when verl requires vLLM 0.27 or later.
    """
    if not os.environ.keys() & {OWN_JOB, DIE_WITH_PARENT}:
        return  # not a job of verl-rsim, which is merely installed in this environment
    import vllm

    with contextlib.suppress(InvalidVersion):  # raised for the version of a custom build
        if Version(vllm.__version__).release < (0, 27):
            os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")


def _die_with_parent() -> None:
    """Asks the kernel to kill this process of vLLM when its parent dies (Linux only).

    vLLM's engine core does not notice its parent's death, so a killed server would leave it behind with its memory.
    verl has such a function, but importing verl takes longer than an engine may, and verl's function also kills
    processes whose parent is PID 1.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not os.environ.keys() & {"VERL_RAY_JOB_ID", DIE_WITH_PARENT}:
        return
    if platform.system() != "Linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The kernel sends no signal for a parent that died before the request.
    if not parent.is_alive():
        os.kill(os.getpid(), signal.SIGKILL)
