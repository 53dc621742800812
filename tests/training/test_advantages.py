"""Turn-level GRPO against loops over plain numbers, and against verl's own GRPO."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo import core_algos

from verl_rsim.training.advantages import EPSILON, turn_grpo, turns_of
from verl_rsim.training.rollout_rows import RsimRow, turn_ends

INTERACTION = st.tuples(
    st.sampled_from("abc"),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.floats(-2, 2, width=32)), min_size=1, max_size=5),
)
"""A question, and its turns: tokens observed, tokens generated, reward."""


def tensors(batch):
    """Rewards and masks, padded on the right; from the second turn on something is observed before the choice."""
    masks, rewards = [], []
    for _, turns in batch:
        mask, reward = [], []
        for position, (observed, generated, value) in enumerate(turns):
            observed = observed if position == 0 else observed + 1
            mask += [0] * observed + [1] * generated
            reward += [0.0] * (observed + generated - 1) + [value]
        masks.append(mask)
        rewards.append(reward)
    length = max(map(len, masks)) + 2
    padded = (
        [[*row, *[0] * (length - len(row))] for row in masks],
        [[*row, *[0.0] * (length - len(row))] for row in rewards],
    )
    return torch.tensor(padded[1]), torch.tensor(padded[0])


@given(st.lists(INTERACTION, min_size=1, max_size=8), st.booleans())
def test_it_is_the_documented_formula(batch, normalized):
    rewards, mask = tensors(batch)
    index = np.array([question for question, _ in batch], dtype=object)
    advantages, returns = turn_grpo(rewards, mask, index, config={"norm_adv_by_std_in_grpo": normalized})
    to_go = [[sum(value for *_, value in turns[t:]) for t in range(len(turns))] for _, turns in batch]
    for row, (question, turns) in enumerate(batch):
        siblings = [to_go[other] for other, (asked, _) in enumerate(batch) if asked == question]
        at = 0
        for turn, (observed, generated, _) in enumerate(turns):
            at += observed + (turn > 0)
            group = [values[min(turn, len(values) - 1)] for values in siblings]
            expected = to_go[row][turn]
            if len(group) > 1:
                expected -= statistics.mean(group)
                if normalized:
                    expected /= statistics.stdev(group) + EPSILON
            assert returns[row, at : at + generated].tolist() == pytest.approx([to_go[row][turn]] * generated, abs=1e-4)
            if len(group) == 1 or not normalized or statistics.stdev(group) > 1e-3:  # else rounding is all there is
                assert advantages[row, at : at + generated].tolist() == pytest.approx(
                    [expected] * generated, rel=1e-2, abs=1e-3
                )
            at += generated
        assert not advantages[row][mask[row] == 0].any()


def test_with_all_reward_at_the_end_it_is_verls_grpo():
    torch.manual_seed(0)
    mask = (torch.rand(8, 40) < 0.5).long()
    mask[:, -1] = 1
    rewards = torch.zeros(8, 40)
    rewards[:, -1] = torch.rand(8)
    index = np.array(list("aabbbccc"), dtype=object)
    expected, _ = core_algos.compute_grpo_outcome_advantage(rewards.clone(), mask, index)
    torch.testing.assert_close(turn_grpo(rewards, mask, index)[0], expected, rtol=1e-4, atol=1e-5)


def test_verl_knows_it_by_name():
    assert core_algos.get_adv_estimator_fn("turn_grpo") is turn_grpo


def test_tokens_know_their_turn():
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 1, 1]])
    assert turns_of(mask).tolist() == [[-1, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 2]]
    assert turn_ends(mask[0].tolist()) == [2, 5]


def row(**changed) -> dict:
    fields = {
        "prompt_ids": [1], "response_ids": [5, 9, 9, 6], "response_mask": [1, 0, 0, 1], "metrics": {},
        "extra_fields": {"role": "planner", "reward_extra_info": {"planner_reward": 0.75, "reasoner_reward": 1.0}},
    }  # fmt: skip
    return RsimRow(**fields | changed).as_dict()


def test_each_turns_reward_stands_at_its_last_token():
    assert row(turn_rewards=[-0.25, 1.0])["rm_scores"].tolist() == [-0.25, 0, 0, 1.0]
    assert row()["rm_scores"].tolist() == [0, 0, 0, 0.75], "all at the end where nothing else is known"
    nothing = row(response_ids=[5], response_mask=[0], turn_rewards=[0.5])
    assert nothing["rm_scores"].tolist() == [0.75], "no turn was played"
    assert "turn_rewards" not in nothing
