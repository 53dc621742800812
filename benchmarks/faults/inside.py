"""Runs inside a job's processes (``VERL_USE_EXTERNAL_MODULES``): says which phase the job is in and which process is
which, and breaks what cannot be broken from outside, once the file ``fault`` says so.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import wrapt

FOLDER = Path(os.environ["RSIM_FAULTS"])
PHASES, ROLES, FAULT = FOLDER / "phases", FOLDER / "roles.json", FOLDER / "fault"


def asked(what: str) -> bool:
    """Whether this fault is on."""
    return FAULT.exists() and FAULT.read_text() == what


def _phases(module: Any) -> None:
    def told(progress, _watchdog, args, kwargs):
        with PHASES.open("a") as file:
            file.write(f"{args[0]}\n")
        return progress(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "Watchdog.progress", told)


def _roles(module: Any) -> None:
    def told(fit, trainer, args, kwargs):
        import ray

        from verl_rsim.monitoring.watchdog.watchdog import job_actors

        ray.get([worker.__ray_ready__.remote() for worker in args[0].agent_loop_workers])
        table = job_actors()
        found = {actor["ActorClassName"].split(".")[-1]: actor["Pid"] for actor in table.values()}
        handles = {"agent loop worker": args[0].agent_loop_workers[0]}
        handles["reward worker"] = trainer.get_reward_handles()[0]
        for policy in trainer.policies:
            handles[f"{policy.role} server"] = policy.servers()[0]
            handles[f"{policy.role} worker"] = policy.actor_rollout_wg.workers[0]
        found |= {name: table[handle._actor_id.hex()]["Pid"] for name, handle in handles.items()}
        ROLES.write_text(json.dumps(found, indent=1))
        return fit(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "RsimTrainer.fit", told)


def _servers(module: Any) -> None:
    generate = module.vLLMHttpServer.generate

    @functools.wraps(generate)
    async def generated(server, *args, **kwargs):
        output = await generate(server, *args, **kwargs)
        if asked("server: token ids of no word"):
            output.token_ids = [10**6] * len(output.token_ids)
        if asked("server: log-probs that are NaN"):
            output.log_probs = [math.nan] * len(output.log_probs)
        if asked("server: no answer"):
            await asyncio.Event().wait()
        return output

    module.vLLMHttpServer.generate = generated  # a function: of wrapt's wrappers Ray would send the wrapped one alone


def _workers(module: Any) -> None:
    def updated(update, worker, args, kwargs):
        if asked("worker: a weight that is NaN"):
            next(worker.actor.engine.module.parameters()).data.fill_(math.nan)
        return update(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "ActorRolloutRefWorker.update_actor", updated)


for _name, _hook in {
    "verl_rsim.monitoring.watchdog.watchdog": _phases,
    "verl_rsim.training.trainer": _roles,
    "verl.workers.rollout.vllm_rollout.vllm_async_server": _servers,
    "verl.workers.engine_workers": _workers,
}.items():
    wrapt.register_post_import_hook(_hook, _name)
