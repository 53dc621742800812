"""Hooks that run in every process of a job (``VERL_USE_EXTERNAL_MODULES``): write its phases and process ids to files,
and inject the fault that the file ``fault`` names.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
from pathlib import Path
from types import ModuleType

import wrapt

FOLDER = Path(os.environ["RSIM_FAULTS"])
PHASES, PROCESSES, FAULT = FOLDER / "phases", FOLDER / "processes.json", FOLDER / "fault"


def is_injected(fault: str) -> bool:
    """Returns True while this fault is to be injected."""
    return FAULT.exists() and FAULT.read_text() == fault


def _record_phases(module: ModuleType) -> None:
    def begin_phase(original, _watchdog, args, kwargs):
        with PHASES.open("a") as file:
            file.write(f"{args[0]}\n")
        return original(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "Watchdog.begin_phase", begin_phase)


def _record_processes(module: ModuleType) -> None:
    def fit(original, trainer, args, kwargs):
        import ray

        from verl_rsim.monitoring.watchdog.watchdog import job_actors

        # A worker that is still starting has no process id in the table.
        ray.get([worker.__ray_ready__.remote() for worker in args[0].agent_loop_workers])
        table = job_actors()
        pids = {actor["ActorClassName"].split(".")[-1]: actor["Pid"] for actor in table.values()}
        handles = {"agent loop worker": args[0].agent_loop_workers[0]}
        handles["reward worker"] = trainer.get_reward_handles()[0]
        for policy in trainer.policies:
            handles[f"{policy.role} server"] = policy.servers()[0]
            handles[f"{policy.role} worker"] = policy.actor_rollout_wg.workers[0]
        pids |= {name: table[handle._actor_id.hex()]["Pid"] for name, handle in handles.items()}
        PROCESSES.write_text(json.dumps(pids, indent=1))
        return original(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "RsimTrainer.fit", fit)


def _patch_servers(module: ModuleType) -> None:
    generate = module.vLLMHttpServer.generate

    @functools.wraps(generate)
    async def faulty_generate(server, *args, **kwargs):
        output = await generate(server, *args, **kwargs)
        if is_injected("server: token ids of no word"):
            output.token_ids = [10**6] * len(output.token_ids)
        if is_injected("server: log-probs that are NaN"):
            output.log_probs = [math.nan] * len(output.log_probs)
        if is_injected("server: no answer"):
            await asyncio.Event().wait()
        return output

    # A plain function instead of a wrapt wrapper: Ray serialises the function inside such a wrapper, not the wrapper.
    module.vLLMHttpServer.generate = faulty_generate


def _patch_workers(module: ModuleType) -> None:
    def update_actor(original, worker, args, kwargs):
        if is_injected("worker: a weight that is NaN"):
            next(worker.actor.engine.module.parameters()).data.fill_(math.nan)
        return original(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "ActorRolloutRefWorker.update_actor", update_actor)


for _name, _hook in {
    "verl_rsim.monitoring.watchdog.watchdog": _record_phases,
    "verl_rsim.training.trainer": _record_processes,
    "verl.workers.rollout.vllm_rollout.vllm_async_server": _patch_servers,
    "verl.workers.engine_workers": _patch_workers,
}.items():
    wrapt.register_post_import_hook(_hook, _name)
