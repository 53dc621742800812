"""Runs inside the trainer (``VERL_USE_EXTERNAL_MODULES``): after each step, what it holds of Ray and TransferQueue."""

from __future__ import annotations

import json
import os
from typing import Any

import wrapt


def _steps(module: Any) -> None:
    def counted(end, trainer, args, kwargs):
        import ray
        import transfer_queue

        end(*args, **kwargs)
        room = "object_store_memory"
        held = {
            "step": trainer.global_steps,
            "keys in TransferQueue": sum(map(len, transfer_queue.kv_list().values())),
            "references to Ray objects": len(ray._private.worker.global_worker.core_worker.get_all_reference_counts()),
            "bytes in Ray's object store": ray.cluster_resources()[room] - ray.available_resources()[room],
        }
        with open(os.environ["RSIM_SOAK"], "a") as file:
            file.write(json.dumps(held) + "\n")

    wrapt.wrap_function_wrapper(module, "RsimTrainer.on_step_end", counted)


wrapt.register_post_import_hook(_steps, "verl_rsim.training.trainer")
