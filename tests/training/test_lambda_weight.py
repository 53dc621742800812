"""Lambda is the linear weight of the objective: verl's loss on weighted advantages against plain torch."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def vanilla_loss():
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import ActorConfig

    config = ActorConfig(
        strategy="fsdp2", rollout_n=2, ppo_mini_batch_size=2, ppo_micro_batch_size_per_gpu=2, clip_ratio=0.2
    )

    def loss(old, new, advantages, mask):
        return get_policy_loss_fn("vanilla")(
            old_log_prob=old, log_prob=new, advantages=advantages, response_mask=mask, config=config
        )[0]

    return loss


@pytest.mark.parametrize(("planner", "reasoner"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.2, 0.8)])
@pytest.mark.parametrize("drift", [0.0, 0.5], ids=["on-policy", "off-policy"])
def test_weighted_advantages_weigh_the_gradients(vanilla_loss, planner, reasoner, drift):
    torch.manual_seed(0)
    for weight in (planner, reasoner):
        advantages, mask = torch.randn(4, 1).expand(4, 6), (torch.rand(4, 6) > 0.4).float()
        new = torch.randn(4, 6).requires_grad_()
        old = new.detach() + drift * torch.randn(4, 6)
        vanilla_loss(old, new, weight * advantages, mask).backward()

        again = new.detach().clone().requires_grad_()
        ratio = (again - old).exp()
        surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        surrogate = torch.where(advantages < 0, torch.maximum(surrogate, 3.0 * advantages), surrogate)  # dual clip
        (-weight * (surrogate * mask).sum() / mask.sum()).backward()
        torch.testing.assert_close(new.grad, again.grad)
        assert weight or not new.grad.any()
