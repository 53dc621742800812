"""What verl-rsim does inside vLLM's own processes; vLLM calls :func:`load` in each (``vllm.general_plugins``)."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import platform
import signal
from multiprocessing.process import BaseProcess

from packaging.version import InvalidVersion, Version

from verl_rsim.training.cpu import patches
from verl_rsim.utils.environment import DIE_WITH_PARENT, OWN_JOB

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def load() -> None:
    """Tie the engine's processes to the server that started them, keep all labels, make CPU weights reloadable."""
    _avoid_lost_labels()
    parent = multiprocessing.parent_process()
    if parent is not None and os.environ.keys() & {"VERL_RAY_JOB_ID", DIE_WITH_PARENT}:
        _die_with(parent)
    patches.make_weights_reloadable()
    patches.wait_without_spinning()


def _avoid_lost_labels() -> None:
    """Let vLLM before 0.27 run this package's models on its first model runner, unless the user says otherwise.

    The second one, the default there for Llama, Mistral and Qwen3, applies ``allowed_token_ids`` in a kernel with a
    race (vLLM's pull request 46245): some of the nine labels may be lost, and servers then sample from another
    distribution than the one that is trained. 0.27 has it mended; which version was the first to was not looked into.
    Remove when verl asks for 0.27 or later.
    """
    if not os.environ.keys() & {OWN_JOB, DIE_WITH_PARENT}:
        return  # another's job in the same environment
    import vllm

    with contextlib.suppress(InvalidVersion):  # of a build of one's own
        if Version(vllm.__version__).release < (0, 27):
            os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")


def _die_with(parent: BaseProcess) -> None:
    """A killed server must not leave its engine behind; vLLM's engine core does not notice the death of its parent.

    verl has such a function too, but importing verl takes longer than an engine may, and it ends what PID 1 started.
    """
    if platform.system() != "Linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not parent.is_alive():  # since before the call
        os.kill(os.getpid(), signal.SIGKILL)
