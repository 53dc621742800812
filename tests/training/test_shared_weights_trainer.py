"""One policy in both roles: what its one update minimises, against plain torch."""

from __future__ import annotations

import pytest
import torch


def gradient(mode: str, lengths: dict[str, list[int]], weights: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one loss over all rows with scaled advantages, and of the weighted sum of each role's own loss."""
    from verl.trainer.ppo.core_algos import agg_loss

    from verl_rsim.training.shared_weights_trainer import role_factors

    torch.manual_seed(0)
    roles = [role for role, rows in lengths.items() for _ in rows]
    tokens = torch.tensor([length for rows in lengths.values() for length in rows])
    mask = (torch.arange(8) < tokens[:, None]).float()
    advantages, log_probs = torch.randn(len(roles), 1).expand(-1, 8), torch.randn(len(roles), 8).requires_grad_()
    learns = torch.tensor([role in weights for role in roles])
    own = {role: torch.tensor([name == role for name in roles]) for role in weights}

    def loss(rows: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
        surrogate = -(log_probs - log_probs.detach()).exp() * scaled
        return agg_loss(surrogate[rows], mask[rows], mode, batch_num_tokens=mask[rows].sum(), loss_scale_factor=8)

    factors = role_factors(roles, tokens * learns, weights, mode)
    (one,) = torch.autograd.grad(loss(learns, advantages * factors[:, None]), log_probs)
    (two,) = torch.autograd.grad(sum(w * loss(own[role], advantages) for role, w in weights.items()), log_probs)
    return one, two


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "token-sum"])
@pytest.mark.parametrize("weights", [{"planner": 0.3, "reasoner": 0.7}, {"planner": 0.5}, {"reasoner": 1.0}])
def test_one_update_minimises_the_weighted_sum_of_both_roles_losses(mode, weights):
    one, two = gradient(mode, {"planner": [1, 2, 3], "reasoner": [8, 7, 5]}, weights)
    torch.testing.assert_close(one, two)
    assert one.abs().sum() > 0


def test_a_role_that_generated_nothing_leaves_the_other_as_it_is():
    from verl_rsim.training.shared_weights_trainer import role_factors

    factors = role_factors(
        ["planner", "reasoner"], torch.tensor([0, 4]), {"planner": 0.3, "reasoner": 0.7}, "token-mean"
    )
    assert factors.tolist() == pytest.approx([0.0, 0.7])


def test_the_rows_of_an_episode_stay_side_by_side():
    from transfer_queue import KVBatchMeta

    from verl_rsim.training.shared_weights_trainer import interleaved

    rows = [KVBatchMeta(partition_id="train", keys=[f"{uid}_0_{i}" for uid in "ba"], tags=[{}, {}]) for i in (0, 1)]
    assert interleaved(rows).keys == ["b_0_0", "b_0_1", "a_0_0", "a_0_1"]
    assert interleaved(rows[1:]).keys == ["b_0_1", "a_0_1"]


def test_a_setting_is_as_it_was_after_an_error():
    from omegaconf import OmegaConf

    from verl_rsim.training.shared_weights_trainer import setting

    config = OmegaConf.create({"algorithm": {"adv_estimator": "grpo"}})
    with pytest.raises(KeyError, match="turn_grpo"), setting(config, "algorithm.adv_estimator", "turn_grpo"):
        raise KeyError(config.algorithm.adv_estimator)
    assert config.algorithm.adv_estimator == "grpo"
