"""Trains one policy in both roles (``rsim.shared_weights``): one set of servers, one training worker, one optimizer.

Both roles' rows are learned in one update. Advantages are estimated role by role and scaled so that the update's loss
is lambda times the planner's plus 1 - lambda times the reasoner's, each averaged over its own tokens, as with two
policies. KL and entropy terms are verl's, averaged over the tokens of both roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_rsim.core.schedule import Stage
from verl_rsim.training.batch_sampler import split_by_role
from verl_rsim.training.checkpoint.store import SHARED
from verl_rsim.training.job_config import PolicyConfigs
from verl_rsim.training.policy import Policy, role_metrics
from verl_rsim.training.rollout_rows import role_of
from verl_rsim.training.strategy_engine import LABEL_MASK
from verl_rsim.training.trainer import RsimTrainer


class SharedWeightsTrainer(RsimTrainer):
    """Trains one policy as planner and as reasoner."""

    own_role = SHARED

    def _make_policies(self, configs: PolicyConfigs) -> None:
        self.policies = (self,)
        self.policy_of = {"planner": self, "reasoner": self}

    def _set_up_policies(self) -> None:
        Policy._setup(self)

    def _on_pools_reserved(self) -> None:
        """Does nothing: there is no other policy to set up."""

    def on_sample_end(self) -> None:
        """Lets the servers free their memory for the update."""
        Policy.on_sample_end(self)

    # ---- a training step --------------------------------------------------------------------------------------------

    def _update_policies(
        self, rows: dict[str, KVBatchMeta], stage: Stage, metrics: dict, timing: dict
    ) -> dict[str, KVBatchMeta]:
        """Runs one update with the rows of the roles that have a weight."""
        metrics |= {f"{role}/weight": weight for role, weight in stage.weights.items()}
        self._weights = {role: weight for role, weight in stage.weights.items() if weight}
        if not self._weights:
            return rows
        self._advantage_metrics: dict[str, dict[str, Any]] = {role: {} for role in self._weights}
        # verl's mini-batch size counts episodes, and each episode has a row for every role that learns.
        key = "actor_rollout_ref.actor.ppo_mini_batch_size"
        with setting(self.config, key, OmegaConf.select(self.config, key) * len(self._weights)):
            result = self.learn(interleaved([rows[role] for role in self._weights]), 1.0)
        metrics |= result.metrics
        timing |= result.timing
        for role, own in self._advantage_metrics.items():
            metrics |= role_metrics(role, own)
        return rows | self._by_role(result.rows)

    def _by_role(self, batch: KVBatchMeta) -> dict[str, KVBatchMeta]:
        """Returns the rows of each role that learns."""
        if len(self._weights) == 1:  # not by the keys: those of verl's padding look like the planner's
            return dict.fromkeys(self._weights, batch)
        return split_by_role(batch)

    def _balance_batch(
        self, batch: KVBatchMeta, metrics: dict, logging_prefix: str = "global_seqlen", keep_minibatch: bool = False
    ) -> KVBatchMeta:
        """Pads the batch as verl does, then marks for the engine where labels were chosen."""
        batch = super()._balance_batch(batch, metrics, logging_prefix, keep_minibatch)
        if self.rsim.planner_decoding == "free":
            return batch
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        mask = data["response_mask"]
        chosen = mask.values() * by_row(mask, [role_of(key) == "planner" for key in batch.keys])
        fields = TensorDict({LABEL_MASK: nested_like(mask, chosen)}, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Computes advantages by each role's estimator among the role's rows, and multiplies them by its factor."""
        common = self.config.algorithm.adv_estimator
        estimators = {"planner": self.rsim.planner_adv_estimator or common, "reasoner": common}
        for role, rows in self._by_role(batch).items():
            with setting(self.config, "algorithm.adv_estimator", estimators[role]):
                PPOTrainer._compute_advantage(self, rows, self._advantage_metrics[role])
        fields = ["advantages", "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        mask, advantages = data["response_mask"], data["advantages"]
        roles = [role_of(key) for key in batch.keys]
        tokens = torch.stack([row.sum() for row in mask.unbind()])
        factors = role_factors(roles, tokens, self._weights, self.config.actor_rollout_ref.actor.loss_agg_mode)
        data["advantages"] = nested_like(advantages, advantages.values() * by_row(advantages, factors))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data.select("advantages"))

    def batch_metrics(self, rows: KVBatchMeta, timing: dict[str, float], step: int, epoch: int) -> dict[str, Any]:
        """Returns the metrics as with two policies, and the entropy of the role's own distribution."""
        metrics = super().batch_metrics(rows, timing, step, epoch)
        fields = ["entropy", "response_mask"]
        data = tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=fields)
        if "entropy" in data:  # not with rollout_correction.bypass_mode
            metrics["entropy"] = data["entropy"].values()[data["response_mask"].values().bool()].mean().item()
        return metrics


def role_factors(
    roles: Sequence[str], tokens: torch.Tensor, weights: Mapping[str, float], loss_agg_mode: str
) -> torch.Tensor:
    """Returns factors of the rows' advantages that make the loss over all rows the weighted sum of the roles' losses.

    verl averages over all tokens (or rows) of an update, where a role alone would be averaged over its own.

    Args:
        roles: the role of each row.
        tokens: ``(rows,)``, number of generated tokens of each row.
        weights: the weight of each role that learns.
        loss_agg_mode: verl's ``actor.loss_agg_mode``.

    Returns:
        ``(rows,)``; 0 for padding when the planner does not learn.
    """
    factors = torch.zeros(len(roles))
    for role, weight in weights.items():
        own = torch.tensor([name == role for name in roles])
        if loss_agg_mode == "token-mean":
            share = tokens[own].sum() / tokens.sum()
        else:  # token-sum is no mean; the others are over rows, of which each role has as many
            share = torch.tensor(1.0 if loss_agg_mode == "token-sum" else 1 / len(weights))
        factors[own] = weight / share if share > 0 else 0.0
    return factors


def interleaved(rows: Sequence[KVBatchMeta]) -> KVBatchMeta:
    """Joins the rows of several roles, those of an episode side by side, since mini-batches are taken in order."""
    keys, tags = [], []
    for position in range(len(rows[0].keys)):
        for batch in rows:
            keys.append(batch.keys[position])
            tags.append(batch.tags[position])
    return KVBatchMeta(partition_id=rows[0].partition_id, keys=keys, tags=tags, extra_info=dict(rows[0].extra_info))


def by_row(nested: torch.Tensor, values: Sequence[Any] | torch.Tensor) -> torch.Tensor:
    """Repeats one value a row to ``(elements,)``, aligned with ``nested.values()``."""
    return torch.repeat_interleave(torch.as_tensor(values), nested.offsets().diff())


def nested_like(nested: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Arranges ``(elements,)`` values in the rows of another nested tensor."""
    return torch.nested.nested_tensor_from_jagged(values, nested.offsets())


@contextmanager
def setting(config: DictConfig, key: str, value: Any) -> Iterator[None]:
    """Sets a value that verl's methods read from the configuration, and restores the old one."""
    before = OmegaConf.select(config, key)
    OmegaConf.update(config, key, value)
    try:
        yield
    finally:
        OmegaConf.update(config, key, before)
