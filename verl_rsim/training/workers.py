"""Keeps each role's worker processes and servers apart from the other role's.

verl derives the names of servers and the sockets of the weight sync from the replica rank. The planner's replicas
therefore get ranks of their own. Each kind of servers has a rollout name in verl's registries
(:func:`verl_rsim.training.job_config.rollout_name`), so that verl finds it by itself.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.memory_utils import aggressive_empty_cache
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutMode, RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

from verl_rsim.training import cpu
from verl_rsim.training.job_config import rollout_name

PLANNER_RANK_OFFSET = 1000
"""First replica rank of the planner's servers; the reasoner's start at 0."""


def _replica_class(rank_offset: int, frozen: bool) -> type:
    """Returns verl's vLLM replica with shifted ranks; a frozen one keeps its weights when it sleeps."""
    # Imported here: the module imports vLLM, which only processes that start servers need.
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica

    class RsimReplica(vLLMReplica):
        async def launch_servers(self) -> None:
            # Not in the constructor: there verl picks this replica's workers by its plain rank.
            self.replica_rank += rank_offset
            if frozen:
                # A hybrid server drops its weights when it sleeps, because the trainer will send them again.
                self.rollout_mode = RolloutMode.COLOCATED
            await super().launch_servers()

    return RsimReplica


class PlannerAdapter(ServerAdapter):
    """Connects a planner's training worker with its servers."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Weights travel over a socket named after the replica's rank: without the shift both roles would share one.
        verl_rank, self.replica_rank = self.replica_rank, self.replica_rank + PLANNER_RANK_OFFSET
        self.zmq_handle = self.zmq_handle.replace(f"-replica-{verl_rank}-", f"-replica-{self.replica_rank}-")

    def _get_server_name_prefix(self) -> str:
        return "vllm_"  # verl would derive it from the rollout's name, which is not "vllm" here


class ReasonerAdapter(ServerAdapter):
    """Connects a frozen reasoner's worker with its servers."""

    def _get_server_name_prefix(self) -> str:
        return "vllm_"


def _register_rollout(role: str, frozen: bool, rank_offset: int, adapter: type[ServerAdapter]) -> None:
    """Registers a role's servers with verl under the role's rollout name."""
    name = rollout_name(role, frozen)

    def load_replica_class() -> type:
        return _replica_class(rank_offset, frozen)

    RolloutReplicaRegistry.register(name, load_replica_class)
    _ROLLOUT_REGISTRY[(name, "async")] = f"{adapter.__module__}.{adapter.__name__}"


_register_rollout("planner", False, PLANNER_RANK_OFFSET, PlannerAdapter)
_register_rollout("planner", True, PLANNER_RANK_OFFSET, PlannerAdapter)
_register_rollout("reasoner", True, 0, ReasonerAdapter)  # a trained reasoner's servers are verl's own


class FrozenWorker(ActorRolloutRefWorker):
    """Holds a frozen policy's place on the GPU for its servers; has no model of its own."""

    def __init__(self, config: DictConfig, role: str, **kwargs: Any):
        super().__init__(config, role="rollout", **kwargs)


class TrainedWorker(ActorRolloutRefWorker):
    """Trains a policy like verl's worker; unpickling this class in its process registers the rollouts above."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[attr-defined]  # an enum that verl fills at run time
    def release_memory(self) -> None:
        """Returns the memory that torch has cached to the GPU, which the other policy shares.

        verl's worker does so only when it sends its own weights to its servers. That is too late for the other
        policy's servers, which wake up before.
        """
        if not cpu.is_chosen():
            aggressive_empty_cache(force_sync=True)
