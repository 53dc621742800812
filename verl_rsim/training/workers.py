"""A role's worker processes and servers, kept apart from the other role's.

verl derives the names of servers and the sockets of the weight sync from the replica rank: the planner's replicas get
ranks of their own. Each kind of servers has a rollout name in verl's registries, so that verl picks it by itself.
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

PLANNER_RANK_OFFSET = 1000
"""First replica rank of the planner's servers; the reasoner's start at 0."""


def _replica_class(offset: int, frozen: bool) -> type:
    """verl's vLLM replica with shifted ranks; a frozen one keeps its weights when it sleeps."""
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica

    class RsimReplica(vLLMReplica):
        async def launch_servers(self) -> None:
            self.replica_rank += offset  # after verl has used the plain rank to pick this replica's workers
            if frozen:
                self.rollout_mode = RolloutMode.COLOCATED
            await super().launch_servers()

    return RsimReplica


class PlannerAdapter(ServerAdapter):
    """The training worker's end of the planner's servers."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        plain, self.replica_rank = self.replica_rank, self.replica_rank + PLANNER_RANK_OFFSET
        self.zmq_handle = self.zmq_handle.replace(f"-replica-{plain}-", f"-replica-{self.replica_rank}-")

    def _get_server_name_prefix(self) -> str:
        return "vllm_"


class ReasonerAdapter(ServerAdapter):
    """The frozen reasoner's worker's end of its servers."""

    def _get_server_name_prefix(self) -> str:
        return "vllm_"


def rollout_name(role: str, frozen: bool) -> str:
    """The name under which verl finds the servers of a role."""
    if role != "planner" and not frozen:
        return "vllm"
    return f"rsim_{role}{'_frozen' if frozen else ''}"


for _role, _offset, _adapter in (("planner", PLANNER_RANK_OFFSET, PlannerAdapter), ("reasoner", 0, ReasonerAdapter)):
    for _frozen in (False, True):
        _name = rollout_name(_role, _frozen)
        if _name != "vllm":
            RolloutReplicaRegistry.register(_name, lambda o=_offset, f=_frozen: _replica_class(o, f))
            _ROLLOUT_REGISTRY[(_name, "async")] = f"{_adapter.__module__}.{_adapter.__name__}"


class FrozenWorker(ActorRolloutRefWorker):
    """Holds a frozen policy's place on the GPU for its servers; has no model of its own."""

    def __init__(self, config: DictConfig, role: str, **kwargs: Any):
        super().__init__(config, role="rollout", **kwargs)


class TrainedWorker(ActorRolloutRefWorker):
    """verl's worker, in a process where unpickling this class registers the rollouts above."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def release_memory(self) -> None:
        """Give what torch keeps for later back to the GPU, which the other policy shares.

        verl's worker does so when it hands its own weights to its servers: too late for those of the other policy.
        """
        if not cpu.is_chosen():
            aggressive_empty_cache(force_sync=True)
