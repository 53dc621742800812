"""Trains and serves one role's policy on verl: its workers, its servers, its weight sync and its update.

A policy is a verl trainer. Only :class:`verl_rsim.training.trainer.RsimTrainer`, the reasoner's policy, drives the
training loop. The planner's policy uses its data loader and reward workers, and its GPUs unless it has its own.
A frozen policy owns servers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.utils.torch_dtypes import PrecisionType

from verl_rsim.core.schedule import Schedule
from verl_rsim.training.phase_reporter import PhaseReporter
from verl_rsim.training.resource_pools import ReservedPools, SharedPools
from verl_rsim.training.workers import FrozenWorker, TrainedWorker


@dataclass(frozen=True, slots=True)
class LearnResult:
    """Holds the outcome of a policy's part of a training step.

    Attributes:
        rows: the rows that were learned from, padded where verl pads them.
        metrics: under ``{role}/``.
        timing: seconds of each phase, under ``{role}/``.
    """

    rows: KVBatchMeta
    metrics: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)


class Policy(PPOTrainerSync):
    """Trains and serves one role's policy.

    Args:
        config: a whole verl configuration whose ``actor_rollout_ref`` is this role's block; see
            :func:`verl_rsim.training.job_config.prepare_configs`.
        role: "planner", "reasoner", or "shared" for one policy that plays both.
        frozen: the policy has servers and no training worker.
        phases: reports the phases of a training step.
        host: the policy that drives verl's loop and lends this one its data loader, and its GPUs unless ``own_pool``;
            None for the host itself.
        own_pool: the policy has GPUs of its own.
    """

    schedule: Schedule

    def __init__(
        self,
        config: DictConfig,
        role: str,
        *,
        frozen: bool,
        phases: PhaseReporter,
        host: Policy | None = None,
        own_pool: bool = True,
    ):
        self.role, self.frozen, self.phases, self.host, self.own_pool = role, frozen, phases, host, own_pool
        self.advantage_weight = 1.0
        self._weights_changed = True  # since the servers last got them
        super().__init__(config)

    # ---- set-up -----------------------------------------------------------------------------------------------------

    def _init_dataloader(self) -> None:
        """Takes the length of the training from the host and tells the learning rate's schedule the updates."""
        host = self.host or self
        self.total_training_steps = host.total_training_steps
        updates = host.schedule.updates(self.role, self.total_training_steps)
        with open_dict(self.config):  # as verl does, once it knows the length of the data
            self.config.actor_rollout_ref.actor.optim.total_training_steps = max(updates, 1)

    def _init_resource_pool_mgr(self) -> None:
        """Plans the GPUs: the host's pools, or pools of this policy's own that are reserved at once."""
        super()._init_resource_pool_mgr()
        worker = FrozenWorker if self.frozen else TrainedWorker
        self.role_worker_mapping = {role: ray.remote(worker) for role in self.role_worker_mapping}
        if self.host is not None and not self.own_pool:
            self.resource_pool_manager = SharedPools(self.host.resource_pool_manager, self.mapping)
            return
        prefix = f"{self.role}_" if self.host else ""
        self.resource_pool_manager = ReservedPools(
            self.resource_pool_manager, prefix, self.config.trainer.device, self._on_pools_reserved
        )

    def _on_pools_reserved(self) -> None:
        """Does nothing; called when the GPUs are reserved. The host starts the other policy's set-up here."""

    def _load_checkpoint(self) -> None:
        self.global_steps = 0  # both policies are loaded together, by JobCheckpoints

    @property
    def served_dtype(self) -> str:
        """The dtype in which the servers compute, by torch's name."""
        name = str(self.config.actor_rollout_ref.rollout.dtype)
        return {"float": "float32", "half": "float16", "auto": "bfloat16"}.get(name, name)

    @property
    def base_model(self) -> str:
        """The model that is trained: an absolute folder, or a name at a hub."""
        path = Path(self.config.actor_rollout_ref.model.path).expanduser()
        return str(path.absolute()) if path.is_dir() else str(self.config.actor_rollout_ref.model.path)

    def servers(self) -> list[Any]:
        """Returns the Ray actors that serve this policy."""
        servers = []
        for replica in self.llm_server_manager.get_replicas():
            servers.extend(replica.servers)
        return servers

    # ---- update -----------------------------------------------------------------------------------------------------

    def learn(self, rows: KVBatchMeta, weight: float) -> LearnResult:
        """Computes log-probs and advantages times ``weight``, and updates the policy. A weight of 0 costs nothing.

        Args:
            rows: this role's rows.
            weight: factor of the advantages, from the schedule's stage; 0 skips the update.
        """
        weight_key = f"{self.role}/weight"
        if self.frozen or weight == 0:
            return LearnResult(rows, metrics={weight_key: 0.0})
        self.advantage_weight = weight
        metrics: dict[str, Any] = {}
        timing: dict[str, float] = {}
        rows.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        rows = self._balance_batch(rows, metrics=metrics)
        self.phases.begin("log_probs", self.role)
        with marked_timer(f"{self.role}/old_log_prob", timing):
            rows = self._compute_old_log_prob(rows, metrics=metrics)
        if self.use_reference_policy:
            with marked_timer(f"{self.role}/ref", timing):
                rows = self._compute_ref_log_prob(rows, metrics=metrics)
        with marked_timer(f"{self.role}/adv", timing):
            rows = self._compute_advantage(rows, metrics=metrics)
        self.phases.begin("update", self.role)
        with marked_timer(f"{self.role}/update", timing):
            rows = self._update_actor(rows, metrics=metrics)
            self.actor_rollout_wg.release_memory()
        self.phases.done(self.role)
        self._weights_changed = True
        self._report_overflow(metrics)
        return LearnResult(rows, {weight_key: weight, **role_metrics(self.role, metrics)}, timing)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Computes verl's advantages and multiplies them by the stage's weight."""
        batch = super()._compute_advantage(batch, metrics)
        if self.advantage_weight != 1:
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
            data["advantages"] = data["advantages"] * self.advantage_weight
            batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)
        return batch

    def _report_overflow(self, metrics: dict[str, Any]) -> None:
        """Replaces an infinite gradient norm in float16 by the metric ``overflow``, which is 1 in such a step.

        The loss scaler tried too large a scale: it skips the update and tries a smaller one. That is no collapse.
        """
        precision = OmegaConf.select(self.config, "actor_rollout_ref.actor.fsdp_config.mixed_precision") or {}
        if PrecisionType.to_dtype(precision.get("param_dtype", "bf16")) is not torch.float16:
            return
        metrics["actor/overflow"] = float(not math.isfinite(metrics["actor/grad_norm"]))
        if metrics["actor/overflow"]:
            del metrics["actor/grad_norm"]

    # ---- weight sync ------------------------------------------------------------------------------------------------

    def sync(self, step: int) -> None:
        """Brings the servers up to date with the weights of a training step, if they are not."""
        sleeping = self.config.actor_rollout_ref.rollout.free_cache_engine
        if self.frozen:
            if sleeping:
                self.checkpoint_manager.wake_up_replicas()
            self._tell_servers(step)
        elif self._weights_changed or sleeping:  # verl's servers drop their weights when they sleep
            self.checkpoint_manager.update_weights(step)
        else:
            self._tell_servers(step)
        self._weights_changed = False

    def _tell_servers(self, step: int) -> None:
        """Sets the training step that the servers report with their answers; a weight update does so by itself."""
        ray.get([server.set_global_steps.remote(step) for server in self.servers()])

    # ---- metrics ----------------------------------------------------------------------------------------------------

    def batch_metrics(self, rows: KVBatchMeta, timing: dict[str, float], step: int, epoch: int) -> dict[str, Any]:
        """Returns verl's metrics of the rows that were learned from, and the gap to the servers' log-probs.

        The names are verl's; see :func:`role_metrics`.
        """
        metrics: dict[str, Any] = {}
        super()._compute_metrics(rows, metrics, timing, step, epoch)
        metrics = {key: value for key, value in metrics.items() if not key.startswith("timing_s/")}
        fields = ["old_log_probs", "rollout_log_probs", "response_mask"]
        data = tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=fields)
        generated = data["response_mask"].values().bool()
        gap = (data["old_log_probs"].values() - data["rollout_log_probs"].values())[generated].abs()
        if gap.numel():
            metrics |= {"log_prob_gap/mean": gap.mean().item(), "log_prob_gap/max": gap.max().item()}
        return metrics


def role_metrics(role: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Renames verl's metrics of one policy: ``actor/x``, ``training/x`` and ``critic/x`` become ``{role}/x``."""
    renamed = {}
    for key, value in metrics.items():
        name = key.split("/", 1)[1] if key.startswith(("actor/", "training/", "critic/")) else key
        renamed[f"{role}/{name}"] = value.item() if hasattr(value, "item") else value
    return renamed
