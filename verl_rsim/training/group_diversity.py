"""The part of the planner's reward that needs all episodes of a question: ``rsim.reward.group_diversity``.

verl scores episodes one at a time, so the trainer adds this part when a batch is complete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta

from verl_rsim.reward.planner_reward import group_diversity


def add_group_diversity(
    rows: KVBatchMeta, reasoner_rows: KVBatchMeta, episodes: Sequence[dict[str, Any]], weight: float
) -> None:
    """Add the part to the planner's rewards, in TransferQueue and in the episodes' ``reward_extra_info``.

    Args:
        rows: the planner's rows.
        reasoner_rows: the reasoner's rows of the same episodes.
        episodes: the episodes' ``extra_fields``, in the order of the reasoner's rows.
        weight: ``rsim.reward.group_diversity``.
    """
    by_episode = {_episode(key): e for key, e in zip(reasoner_rows.keys, episodes, strict=True)}
    episodes = [by_episode[_episode(key)] for key in rows.keys]
    parts = [weight * value for value in diversities(rows.keys, [e["rsim"]["strategies"] for e in episodes])]
    data = tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=["rm_scores"])
    rewards = [row.clone() for row in data["rm_scores"].unbind()]
    for reward, part, episode in zip(rewards, parts, episodes, strict=True):
        reward[-1] += part
        info = episode["reward_extra_info"]
        info |= {"planner_group_diversity": part, "planner_reward": info["planner_reward"] + part}
    data["rm_scores"] = torch.nested.as_nested_tensor(rewards, layout=torch.jagged)
    tq.kv_batch_put(keys=rows.keys, partition_id=rows.partition_id, fields=data)


def _episode(key: str) -> str:
    """The episode of a row: verl's key without the row's index."""
    return key.rsplit("_", 1)[0]


def diversities(keys: Sequence[str], strategies: Sequence[Sequence[int]]) -> list[float]:
    """The diversity of each episode among those of its question, in [0, 1].

    Args:
        keys: verl's row keys ``{uid}_{session}_{index}``; the uid is the question's.
        strategies: the strategies of each.
    """
    questions: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        questions[key.rsplit("_", 2)[0]].append(position)
    found = [0.0] * len(keys)
    for positions in questions.values():
        for position, value in zip(positions, group_diversity([strategies[i] for i in positions]), strict=True):
            found[position] = value
    return found
