"""What verl-rsim does inside vLLM's own processes; vLLM calls :func:`load` in each (``vllm.general_plugins``)."""

from __future__ import annotations

import multiprocessing
import os

from verl_rsim.cpu import patches


def load() -> None:
    """Tie the engine's processes to the server that started them, and make CPU weights reloadable."""
    if "VERL_RAY_JOB_ID" in os.environ and multiprocessing.parent_process() is not None:
        _die_with_parent()
    patches.patch_vllm()


def _die_with_parent() -> None:
    """A killed server must not leave its engine behind; vLLM's engine core does not notice the death of its parent."""
    from verl.workers.rollout.vllm_rollout.utils import set_death_signal

    set_death_signal()
