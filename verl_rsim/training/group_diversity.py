"""Adds the part of the planner's reward that needs all episodes of a question: ``rsim.reward.group_diversity``.

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
    """Adds the diversity to the planner's rewards, in TransferQueue and in the episodes' ``reward_extra_info``.

    Args:
        rows: the planner's rows.
        reasoner_rows: the reasoner's rows of the same episodes.
        episodes: the episodes' ``extra_fields``, in the order of the reasoner's rows.
        weight: ``rsim.reward.group_diversity``.
    """
    by_key = {_episode_key(key): episode for key, episode in zip(reasoner_rows.keys, episodes, strict=True)}
    episodes = [by_key[_episode_key(key)] for key in rows.keys]
    strategies = [episode["rsim"]["strategies"] for episode in episodes]
    parts = [weight * value for value in diversities(rows.keys, strategies)]
    data = tq.kv_batch_get(keys=rows.keys, partition_id=rows.partition_id, select_fields=["rm_scores"])
    rewards = [row.clone() for row in data["rm_scores"].unbind()]
    for reward, part, episode in zip(rewards, parts, episodes, strict=True):
        reward[-1] += part
        info = episode["reward_extra_info"]
        info |= {"planner_group_diversity": part, "planner_reward": info["planner_reward"] + part}
    data["rm_scores"] = torch.nested.as_nested_tensor(rewards, layout=torch.jagged)
    tq.kv_batch_put(keys=rows.keys, partition_id=rows.partition_id, fields=data)


def _episode_key(key: str) -> str:
    """Returns the key of a row's episode: verl's row key without the row's index."""
    return key.rsplit("_", 1)[0]


def diversities(keys: Sequence[str], strategies: Sequence[Sequence[int]]) -> list[float]:
    """Returns the diversity of each episode among those of its question, in [0, 1].

    Args:
        keys: verl's row keys ``{uid}_{session}_{index}``; the uid names the question.
        strategies: the indices of the strategies of each episode.
    """
    questions: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        questions[key.rsplit("_", 2)[0]].append(position)
    values = [0.0] * len(keys)
    for positions in questions.values():
        group = group_diversity([strategies[position] for position in positions])
        for position, value in zip(positions, group, strict=True):
            values[position] = value
    return values
