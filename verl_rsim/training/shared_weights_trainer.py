"""``rsim.shared_weights``: one policy plays both roles. One set of servers, one training worker, one optimizer.

Both roles' rows are learned in one update. Advantages are estimated role by role and scaled so that the update's loss
is lambda times the planner's plus 1 - lambda times the reasoner's, each averaged over its own tokens as it is with two
policies. KL and entropy terms are verl's, averaged over the tokens of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_rsim.core.schedule import Stage
from verl_rsim.training.agent_loop import role_of
from verl_rsim.training.batch_sampler import split_by_role
from verl_rsim.training.checkpoint.store import SHARED
from verl_rsim.training.policy import Policy, role_metrics
from verl_rsim.training.strategy_engine import LABEL_MASK, SHARED_TYPE
from verl_rsim.training.trainer import RsimTrainer


class SharedTrainer(RsimTrainer):
    """Trains one policy as planner and as reasoner."""

    own_role = SHARED

    def __init__(self, config: DictConfig):
        super().__init__(config)
        if self.rsim.planner_decoding == "constrained":
            with open_dict(config):
                config.actor_rollout_ref.model.model_type = SHARED_TYPE

    def _make_planner(self, config: DictConfig) -> Policy:
        return self

    def _set_up_policies(self) -> None:
        Policy._setup(self)

    def _pools_ready(self) -> None:
        """There is no other policy to set up."""

    def on_sample_end(self) -> None:
        """Let the servers free their memory for the update."""
        Policy.on_sample_end(self)

    # ---- step -------------------------------------------------------------------------------------------------------

    def _learn(self, rows: dict[str, KVBatchMeta], stage: Stage, metrics: dict, timing: dict) -> dict[str, KVBatchMeta]:
        """One update with the rows of the roles that have a weight."""
        metrics |= {f"{role}/weight": weight for role, weight in stage.weights.items()}
        self._weights = {role: weight for role, weight in stage.weights.items() if weight}
        if not self._weights:
            return rows
        self._found: dict[str, dict[str, Any]] = {role: {} for role in self._weights}
        key = "actor_rollout_ref.actor.ppo_mini_batch_size"  # in episodes, of which each has a row for every role
        with setting(self.config, key, OmegaConf.select(self.config, key) * len(self._weights)):
            learned = self.learn(interleaved([rows[role] for role in self._weights]), 1.0, metrics, timing)
        for role, found in self._found.items():
            metrics |= role_metrics(role, found)
        return rows | self._by_role(learned)

    def _by_role(self, batch: KVBatchMeta) -> dict[str, KVBatchMeta]:
        """The rows of each role that learns; verl's padding has keys of the planner's, whoever learns."""
        if len(self._weights) == 1:
            return dict.fromkeys(self._weights, batch)
        return split_by_role(batch)

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, **kwargs: Any) -> KVBatchMeta:
        """verl's, which pads; then tell the engine where labels were chosen."""
        batch = super()._balance_batch(batch, metrics, **kwargs)
        if self.rsim.planner_decoding == "free":
            return batch
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        mask = data["response_mask"]
        chosen = mask.values() * by_row(mask, [role_of(key) == "planner" for key in batch.keys])
        fields = TensorDict({LABEL_MASK: nested_like(mask, chosen)}, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Advantages by each role's estimator, among the rows of the role, times its factor."""
        own = {"planner": self.rsim.planner_adv_estimator}
        for role, rows in self._by_role(batch).items():
            estimator = own.get(role) or self.config.algorithm.adv_estimator
            with setting(self.config, "algorithm.adv_estimator", estimator):
                PPOTrainer._compute_advantage(self, rows, self._found[role])
        fields = ["advantages", "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        mask, advantages = data["response_mask"], data["advantages"]
        roles = [role_of(key) for key in batch.keys]
        tokens = torch.stack([row.sum() for row in mask.unbind()])
        factors = role_factors(roles, tokens, self._weights, self.config.actor_rollout_ref.actor.loss_agg_mode)
        data["advantages"] = nested_like(advantages, advantages.values() * by_row(advantages, factors))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data.select("advantages"))

    def batch_metrics(self, rows: KVBatchMeta, timing: dict[str, float], step: int, epoch: int) -> dict[str, Any]:
        """As with two policies, and the entropy of the role's own distribution."""
        found = super().batch_metrics(rows, timing, step, epoch)
        fields = ["entropy", "response_mask"]
        data = tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=fields)
        if "entropy" in data:  # not with rollout_correction.bypass_mode
            found["entropy"] = data["entropy"].values()[data["response_mask"].values().bool()].mean().item()
        return found


def role_factors(
    roles: Sequence[str], tokens: torch.Tensor, weights: Mapping[str, float], loss_agg_mode: str
) -> torch.Tensor:
    """What to multiply each row's advantages with, so that the loss over all rows is the weighted sum of the roles'.

    verl averages over all tokens (or rows) of an update, where a role alone would be averaged over its own.

    Args:
        roles: of each row.
        tokens: ``(rows,)``, generated tokens of each.
        weights: of each role that learns.
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
    """The rows of several roles as one batch, those of an episode side by side: mini-batches are taken in order."""
    return KVBatchMeta(
        partition_id=rows[0].partition_id,
        keys=[key for keys in zip(*(batch.keys for batch in rows), strict=True) for key in keys],
        tags=[tag for tags in zip(*(batch.tags for batch in rows), strict=True) for tag in tags],
        extra_info=dict(rows[0].extra_info),
    )


def by_row(nested: torch.Tensor, values: Sequence[Any] | torch.Tensor) -> torch.Tensor:
    """One value a row, as ``(elements,)`` beside ``nested.values()``."""
    return torch.repeat_interleave(torch.as_tensor(values), nested.offsets().diff())


def nested_like(nested: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``(elements,)`` values in the rows of a nested tensor."""
    return torch.nested.nested_tensor_from_jagged(values, nested.offsets())


@contextmanager
def setting(config: DictConfig, key: str, value: Any) -> Iterator[None]:
    """Another value of a setting that verl's methods read from the configuration."""
    before = OmegaConf.select(config, key)
    OmegaConf.update(config, key, value)
    try:
        yield
    finally:
        OmegaConf.update(config, key, before)
