"""One role's policy on verl: its workers, its servers, its weight sync and its update.

A policy is a verl trainer that does not drive the loop. The planner's policy shares the reasoner's GPUs, data loader
and reward workers; a frozen policy owns servers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.single_controller.ray import ResourcePoolManager
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.utils.torch_dtypes import PrecisionType

from verl_rsim.config.schema import pool_of
from verl_rsim.training.workers import FrozenWorker, TrainedWorker, rollout_name


class OwnPools(ResourcePoolManager):
    """verl's resource pools, made ready at once, so that two policies can be set up side by side.

    Ray tells pools apart by name: ``prefix`` is for a second policy with pools of its own.
    """

    def __init__(self, verl_pools: ResourcePoolManager, prefix: str, device: str, ready: Callable[[], None]):
        super().__init__(
            resource_pool_spec={prefix + name: nodes for name, nodes in verl_pools.resource_pool_spec.items()},
            mapping={role: prefix + name for role, name in verl_pools.mapping.items()},
        )
        self._device, self._ready = device, ready

    def create_resource_pool(self) -> None:
        """Make the pools, then call ``ready``."""
        super().create_resource_pool()
        for pool in self.resource_pool_dict.values():
            pool.get_placement_groups(device_name=self._device)
        self._ready()


class SharedPools(ResourcePoolManager):
    """The resource pools of another manager."""

    def __init__(self, owner: ResourcePoolManager, mapping: dict):
        super().__init__(resource_pool_spec=owner.resource_pool_spec, mapping=mapping)
        self._owner = owner

    def create_resource_pool(self) -> None:
        """Take the owner's pools."""
        self.resource_pool_dict = self._owner.resource_pool_dict


class Policy(PPOTrainerSync):
    """One role's policy.

    Args:
        config: a whole verl configuration whose ``actor_rollout_ref`` is this role's block.
        role: "planner" or "reasoner".
        frozen: has servers and no training worker.
        leader: the policy whose data loader, and so training length, is shared; None for the reasoner's.
        own_pool: has GPUs of its own; otherwise the leader's.
    """

    def __init__(
        self, config: DictConfig, role: str, frozen: bool, leader: Policy | None = None, own_pool: bool = True
    ):
        self.role, self.frozen, self.leader, self.own_pool = role, frozen, leader, own_pool
        self.weight = 1.0
        self._changed = True  # weights differ from what the servers hold
        with open_dict(config):
            rollout = config.actor_rollout_ref.rollout
            rollout.name = rollout_name(role, frozen)
            if frozen:
                rollout.load_format = "auto"
        super().__init__(config)

    # ---- set-up -----------------------------------------------------------------------------------------------------

    def _init_dataloader(self) -> None:
        """Take the length of the training from the leader, and tell the learning rate's schedule how many updates."""
        leader = self.leader or self
        self.total_training_steps = leader.total_training_steps
        with open_dict(self.config):
            updates = leader.schedule.updates(self.role, self.total_training_steps)
            self.config.actor_rollout_ref.actor.optim.total_training_steps = max(updates, 1)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        worker = FrozenWorker if self.frozen else TrainedWorker
        self.role_worker_mapping = {role: ray.remote(worker) for role in self.role_worker_mapping}
        if self.own_pool:
            prefix, device = f"{self.role}_" if self.leader else "", self.config.trainer.device
            self.resource_pool_manager = OwnPools(self.resource_pool_manager, prefix, device, self._pools_ready)
        else:
            self.resource_pool_manager = SharedPools(self.leader.resource_pool_manager, self.mapping)

    def _pools_ready(self) -> None:
        """Called when the GPUs are reserved; the leader sets the other policy up from here."""

    def _load_checkpoint(self) -> None:
        self.global_steps = 0  # both policies are loaded together, see verl_rsim.training.checkpoint.store

    @property
    def served_dtype(self) -> str:
        """What its servers compute in, by torch's name."""
        name = str(self.config.actor_rollout_ref.rollout.dtype)
        return {"float": "float32", "half": "float16", "auto": "bfloat16"}.get(name, name)

    @property
    def base_model(self) -> str:
        """What it is trained from: a folder, absolute, or the name at a hub."""
        path = Path(self.config.actor_rollout_ref.model.path).expanduser()
        return str(path.absolute()) if path.is_dir() else str(self.config.actor_rollout_ref.model.path)

    def servers(self) -> list[Any]:
        """The Ray actors that serve this policy."""
        return [server for replica in self.llm_server_manager.get_replicas() for server in replica.servers]

    # ---- weight sync ------------------------------------------------------------------------------------------------

    def sync(self, step: int) -> None:
        """Bring the servers up to date with the weights of ``step``, at no more cost than needed."""
        sleeps = self.config.actor_rollout_ref.rollout.free_cache_engine
        if self.frozen:
            if sleeps:
                self.checkpoint_manager.wake_up_replicas()
        elif self._changed or sleeps:  # verl's sleeping servers drop their weights
            self.checkpoint_manager.update_weights(step)
        if self.frozen or not (self._changed or sleeps):
            ray.get([server.set_global_steps.remote(step) for server in self.servers()])
        self._changed = False

    # ---- update -----------------------------------------------------------------------------------------------------

    def begins(self, what: str, role: str = "") -> None:
        """Called with what of a step comes next, and whose; the leader tells its watchdog."""

    def done(self, role: str) -> None:
        """Called when a role has learned; likewise."""

    def learn(self, rows: KVBatchMeta, weight: float, metrics: dict[str, Any], timing: dict[str, float]) -> KVBatchMeta:
        """Old log-probs, reference, advantages times ``weight``, update. A weight of 0 costs nothing.

        Args:
            rows: this role's rows.
            weight: factor of the advantages.
            metrics, timing: filled under ``{role}/``.

        Returns:
            The rows, padded where verl pads them.
        """
        metrics[f"{self.role}/weight"] = 0.0 if self.frozen else weight
        if self.frozen or weight == 0:
            return rows
        self.weight = weight
        found: dict[str, Any] = {}
        rows.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        rows = self._balance_batch(rows, metrics=found)
        (self.leader or self).begins("log-probs", self.role)
        with marked_timer(f"{self.role}/old_log_prob", timing):
            rows = self._compute_old_log_prob(rows, metrics=found)
        if self.use_reference_policy:
            with marked_timer(f"{self.role}/ref", timing):
                rows = self._compute_ref_log_prob(rows, metrics=found)
        with marked_timer(f"{self.role}/adv", timing):
            rows = self._compute_advantage(rows, metrics=found)
        (self.leader or self).begins("update", self.role)
        with marked_timer(f"{self.role}/update", timing):
            rows = self._update_actor(rows, metrics=found)
            self.actor_rollout_wg.release_memory()
        (self.leader or self).done(self.role)
        self._changed = True
        self._judge_overflow(found)
        metrics.update(role_metrics(self.role, found))
        return rows

    def _judge_overflow(self, found: dict[str, Any]) -> None:
        """Take a gradient norm that is infinite in float16 for what it is: the loss scaler tried too large a scale.

        It skips such an update and tries a smaller one, so ``overflow`` is 1 and there is no ``grad_norm``.
        """
        precision = OmegaConf.select(self.config, "actor_rollout_ref.actor.fsdp_config.mixed_precision") or {}
        if PrecisionType.to_dtype(precision.get("param_dtype", "bf16")) is not torch.float16:
            return
        found["actor/overflow"] = float(not math.isfinite(found["actor/grad_norm"]))
        if found["actor/overflow"]:
            del found["actor/grad_norm"]

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        if self.weight != 1:
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
            data["advantages"] = data["advantages"] * self.weight
            batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)
        return batch

    # ---- records ----------------------------------------------------------------------------------------------------

    def batch_metrics(self, rows: KVBatchMeta, timing: dict[str, float], step: int, epoch: int) -> dict[str, Any]:
        """verl's metrics of the rows this policy learned from, and how far its servers' log-probs are from its own.

        In verl's names, see :func:`role_metrics`.
        """
        found: dict[str, Any] = {}
        super()._compute_metrics(rows, found, timing, step, epoch)
        found = {key: value for key, value in found.items() if not key.startswith("timing_s/")}
        fields = ["old_log_probs", "rollout_log_probs", "response_mask"]
        data = tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=fields)
        generated = data["response_mask"].values().bool()
        gap = (data["old_log_probs"].values() - data["rollout_log_probs"].values())[generated].abs()
        if gap.numel():
            found |= {"log_prob_gap/mean": gap.mean().item(), "log_prob_gap/max": gap.max().item()}
        return found


def role_metrics(role: str, found: dict[str, Any]) -> dict[str, Any]:
    """verl's metrics of one policy under ``{role}/``: ``actor/x``, ``training/x``, ``critic/x`` become ``{role}/x``."""
    shared = ("actor/", "training/", "critic/")
    return {
        f"{role}/{key.split('/', 1)[1] if key.startswith(shared) else key}": getattr(value, "item", lambda v=value: v)()
        for key, value in found.items()
    }


def longest_row(config: DictConfig, role: str, *, shared: bool) -> int:
    """Tokens that the servers of ``role`` must take: its longest row's; with shared weights, both roles'."""
    blocks = {"planner": config.planner, "reasoner": config.actor_rollout_ref}
    rows = [block.rollout for name, block in blocks.items() if shared or name == role]
    return max(row.prompt_length + row.response_length for row in rows)


def planner_config(config: DictConfig) -> DictConfig:
    """The configuration of the planner's policy: the whole one, with the planner's block as ``actor_rollout_ref``."""
    derived = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    derived.actor_rollout_ref = derived.pop("planner")
    derived.algorithm.adv_estimator = derived.rsim.planner_adv_estimator or derived.algorithm.adv_estimator
    pool = pool_of(config, "planner")
    derived.trainer.n_gpus_per_node, derived.trainer.nnodes = pool.n_gpus_per_node, pool.nnodes
    derived.actor_rollout_ref.rollout.n_gpus_per_node = pool.n_gpus_per_node  # verl spreads a server by it
    derived.reward.num_workers = 0  # the reasoner's policy has them
    derived.reward.reward_model.enable = derived.reward.reward_model.enable_resource_pool = False
    return derived
