"""Counts the trainer's Ray and TransferQueue objects after each step; loaded by ``VERL_USE_EXTERNAL_MODULES``."""

from __future__ import annotations

import json
import os
from types import ModuleType

import wrapt


def _count_objects(module: ModuleType) -> None:
    def on_step_end(original, trainer, args, kwargs):
        import ray
        import transfer_queue

        original(*args, **kwargs)
        store = "object_store_memory"
        counts = {
            "step": trainer.global_steps,
            "keys in TransferQueue": sum(map(len, transfer_queue.kv_list().values())),
            "references to Ray objects": len(ray._private.worker.global_worker.core_worker.get_all_reference_counts()),
            "bytes in Ray's object store": ray.cluster_resources()[store] - ray.available_resources()[store],
        }
        with open(os.environ["RSIM_SOAK"], "a") as file:
            file.write(json.dumps(counts) + "\n")

    wrapt.wrap_function_wrapper(module, "RsimTrainer.on_step_end", on_step_end)


wrapt.register_post_import_hook(_count_objects, "verl_rsim.training.trainer")
