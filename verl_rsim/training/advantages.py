"""Estimates turn-level GRPO advantages: one for each turn of an episode instead of one for the whole episode.

With ``r[i, t]`` the reward of episode ``i`` at turn ``t``, ``T[i]`` its last turn, and ``j`` over the episodes of its
question:

    G[i, t] = sum of r[i, k] for k >= t
    A[i, t] = (G[i, t] - mean_j G[j, min(t, T[j])]) / (std_j G[j, min(t, T[j])] + epsilon)

An episode that has ended counts with the return of its last turn. A choice is therefore not blamed for costs that were
paid before it, and if all reward comes at the end, this is GRPO exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

EPSILON = 1e-6
"""Added to standard deviations, as in verl's GRPO: a group with equal returns gets advantages of 0."""


def turns_of(mask: torch.Tensor) -> torch.Tensor:
    """Returns the turn of each token, from 0; -1 before the first turn.

    A turn is a run of generated tokens and the tokens that follow it up to the next run.

    Args:
        mask: ``(rows, length)``, 1 at generated tokens.
    """
    mask = mask.long()
    before = torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    return (mask * (1 - before)).cumsum(-1) - 1


def turn_grpo(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: Sequence[Any],
    config: Mapping[str, Any] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns advantages and returns by turn, in the form of verl's estimators.

    Args:
        token_level_rewards: ``(rows, length)``; the reward of a turn is the sum over its tokens.
        response_mask: ``(rows, length)``, 1 at generated tokens.
        index: the question of each row.
        config: verl's ``algorithm`` block; ``norm_adv_by_std_in_grpo`` (default true) divides by the deviation.

    Returns:
        Advantages and returns-to-go, both ``(rows, length)``, 0 where nothing was generated.
    """
    turns = turns_of(response_mask).clamp(min=0)
    counts = (turns.max(-1).values + 1).tolist()
    rewards = token_level_rewards.new_zeros(len(turns), max(counts)).scatter_add(1, turns, token_level_rewards)
    returns = rewards.flip(-1).cumsum(-1).flip(-1)
    for row, count in enumerate(counts):
        returns[row, count:] = returns[row, count - 1]  # an episode that has ended keeps its last return
    groups: dict[Any, list[int]] = defaultdict(list)
    for row, question in enumerate(index):
        groups[question].append(row)
    advantages = returns.clone()
    normalized = True if config is None else config.get("norm_adv_by_std_in_grpo", True)
    for rows in groups.values():
        if len(rows) > 1:  # verl's GRPO, too, leaves a row without a group as it is
            group = returns[rows]
            advantages[rows] = group - group.mean(0)
            if normalized:
                advantages[rows] /= group.std(0) + EPSILON
    return advantages.gather(1, turns) * response_mask, returns.gather(1, turns) * response_mask
