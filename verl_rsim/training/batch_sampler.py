"""Samples a batch of episodes through verl's replay buffer, splits its rows by role and measures it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_rsim.config.schema import ROLES
from verl_rsim.monitoring.metrics import reward_metrics, rollout_metrics
from verl_rsim.monitoring.strategy_metrics import strategy_metrics
from verl_rsim.monitoring.watchdog.watchdog import Watchdog
from verl_rsim.training.rollout_rows import role_of
from verl_rsim.utils.errors import ConfigError, JobDied


def split_by_role(batch: KVBatchMeta) -> dict[str, KVBatchMeta]:
    """Returns the rows of each role, in the batch's order."""
    positions: dict[str, list[int]] = {role: [] for role in ROLES}
    for position, key in enumerate(batch.keys):
        positions[role_of(key)].append(position)
    return {role: _select(batch, own) for role, own in positions.items()}


def _select(batch: KVBatchMeta, positions: Sequence[int]) -> KVBatchMeta:
    """Returns the rows at some positions of a batch."""
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[batch.keys[position] for position in positions],
        tags=[batch.tags[position] for position in positions],
        extra_info=dict(batch.extra_info),
    )


def drop_unplayed(rows: dict[str, KVBatchMeta], episodes: list[dict[str, Any]]) -> dict[str, KVBatchMeta]:
    """Removes the rows of episodes that ended before their first turn because the question was too long.

    There is nothing to learn from those, and a mini-batch of nothing else has no mean: its loss is NaN.

    Args:
        rows: the rows by role; those of an episode have the same position in each role.
        episodes: the episodes' ``extra_fields``, in the order of the rows.
    """
    played = [position for position, episode in enumerate(episodes) if episode["rsim"]["strategies"]]
    return {role: _select(batch, played) for role, batch in rows.items()}


def all_rows(*batches: dict[str, KVBatchMeta]) -> KVBatchMeta:
    """Returns all rows of several batches by role, each once: verl clears them from TransferQueue after the step."""
    tags: dict[str, Any] = {}
    partition = ""
    for batch in batches:
        for rows in batch.values():
            partition = rows.partition_id
            tags.update(zip(rows.keys, rows.tags, strict=True))
    return KVBatchMeta(partition_id=partition, keys=list(tags), tags=list(tags.values()))


def episodes_of(reasoner_rows: KVBatchMeta) -> list[dict[str, Any]]:
    """Reads the ``extra_fields`` of the episodes from TransferQueue: their summaries and rewards."""
    data = tq.kv_batch_get(
        keys=reasoner_rows.keys, partition_id=reasoner_rows.partition_id, select_fields=["extra_fields"]
    )
    return [getattr(value, "data", value) for value in data["extra_fields"]]


def episode_metrics(episodes: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the rollout, strategy and reward metrics of a batch of episodes."""
    summaries = [episode["rsim"] for episode in episodes]
    infos = [episode["reward_extra_info"] for episode in episodes]
    by_strategy = strategy_metrics(summaries, [info["acc"] for info in infos])
    return rollout_metrics(summaries) | by_strategy | reward_metrics(infos)


class EmptyBatchError(RuntimeError):
    """verl's replay buffer has no row to return: every episode of the batch failed."""


class MissingMetricError(RuntimeError):
    """verl's replay buffer is to filter groups by a metric that no reward manager returned."""


_VERL_ERRORS = (
    ("no materializable trajectories", EmptyBatchError),
    ("missing DAPO metric", MissingMetricError),
)
"""Parts of verl 0.9.1's messages: its replay buffer raises plain RuntimeErrors. A test holds them against verl."""


def sample_replay_buffer(
    buffer: ReplayBuffer, global_steps: int, partition_id: str, batch_size: int
) -> tuple[KVBatchMeta, dict]:
    """Samples verl's replay buffer and gives its errors types of their own.

    Raises:
        EmptyBatchError: there is not one row.
        MissingMetricError: no row has the metric by which groups are filtered.
    """
    try:
        return buffer.sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
    except RuntimeError as error:
        for part, kind in _VERL_ERRORS:
            if part in str(error):
                raise kind(str(error)) from error
        raise


class RsimReplayBuffer:
    """Wraps verl's replay buffer: raises a diagnosed error on an empty batch, and keeps validation's episodes.

    A validation batch holds the reasoner's rows only, since verl decodes every row of it with the reasoner's tokenizer.

    Args:
        buffer: verl's replay buffer.
        poll_seconds: seconds between two looks at the finished episodes.
        watchdog: names the process that failed a batch.

    Attributes:
        episodes: ``extra_fields`` of the validation episodes that were sampled.
    """

    def __init__(self, buffer: ReplayBuffer, poll_seconds: float, watchdog: Watchdog):
        self.buffer, self.watchdog = buffer, watchdog
        self.buffer.poll_interval = poll_seconds
        self.episodes: list[dict[str, Any]] = []

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Waits for a batch and returns its rows and verl's metrics of the sampling.

        Raises:
            ConfigError: groups are to be filtered by a value that no reward manager returned.
            JobDied: every episode of the batch failed.
        """
        try:
            batch, metrics = sample_replay_buffer(self.buffer, global_steps, partition_id, batch_size)
        except MissingMetricError as error:
            fix = "the reward manager returns no such value; choose acc, planner_reward or reasoner_reward"
            raise ConfigError("algorithm.filter_groups.metric", self.buffer.filter_groups_metric, fix) from error
        except EmptyBatchError as error:
            raise self._every_episode_failed() from error
        if partition_id != "val":
            return batch, metrics
        rows = split_by_role(batch)
        if not rows["reasoner"].keys:
            raise self._every_episode_failed()
        self.episodes += episodes_of(rows["reasoner"])
        tq.kv_clear(keys=rows["planner"].keys, partition_id=partition_id)
        return rows["reasoner"], metrics

    def _every_episode_failed(self) -> JobDied:
        """Returns the error of a batch without episodes; raises a better one if a process is gone."""
        self.watchdog.check()
        failures = self.watchdog.failures()
        return JobDied(f"every episode of the batch failed{failures}; the tracebacks are in the log above")
