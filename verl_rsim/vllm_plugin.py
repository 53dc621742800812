"""What verl-rsim does inside vLLM's own processes; vLLM calls :func:`load` in each (``vllm.general_plugins``)."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
from multiprocessing.process import BaseProcess

from verl_rsim.cpu import patches

DIE_WITH_PARENT = "RSIM_ENGINES_DIE_WITH_PARENT"
"""Set by whoever starts engines outside verl's servers."""
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def load() -> None:
    """Tie the engine's processes to the server that started them, and make CPU weights reloadable."""
    parent = multiprocessing.parent_process()
    if parent is not None and os.environ.keys() & {"VERL_RAY_JOB_ID", DIE_WITH_PARENT}:
        _die_with(parent)
    patches.patch_vllm()


def _die_with(parent: BaseProcess) -> None:
    """A killed server must not leave its engine behind; vLLM's engine core does not notice the death of its parent.

    verl has such a function too, but importing verl takes longer than an engine may, and it ends what PID 1 started.
    """
    if platform.system() != "Linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not parent.is_alive():  # since before the call
        os.kill(os.getpid(), signal.SIGKILL)
