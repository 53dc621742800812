"""A batch of episodes: sampled through verl's replay buffer, taken apart by role, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta

from verl_rsim.monitoring.metrics import reward_metrics, rollout_metrics
from verl_rsim.monitoring.strategy_metrics import strategy_metrics
from verl_rsim.monitoring.watchdog.watchdog import Watchdog
from verl_rsim.training.agent_loop import role_of
from verl_rsim.utils.errors import ConfigError, JobDied

NO_ROWS, NO_METRIC = "no materializable trajectories", "missing DAPO metric"
"""In verl's errors: for a batch without a single row, and for a value to filter by that no row has."""


def split_by_role(batch: KVBatchMeta) -> dict[str, KVBatchMeta]:
    """The rows of each role, in the batch's order."""
    roles = [role_of(key) for key in batch.keys]
    return {
        role: _some_of(batch, [i for i, own in enumerate(roles) if own == role]) for role in ("planner", "reasoner")
    }


def _some_of(batch: KVBatchMeta, places: Sequence[int]) -> KVBatchMeta:
    """The rows at some places of a batch."""
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[batch.keys[i] for i in places],
        tags=[batch.tags[i] for i in places],
        extra_info=dict(batch.extra_info),
    )


def with_a_turn(rows: dict[str, KVBatchMeta], episodes: list[dict[str, Any]]) -> dict[str, KVBatchMeta]:
    """The rows of each role without episodes that ended before their first turn (the question was too long).

    There is nothing to learn from those, and a mini-batch of nothing else has no mean: its loss is NaN.

    Args:
        rows: by role; those of an episode stand at the same place.
        episodes: the episodes' ``extra_fields``, in that order.
    """
    played = [index for index, episode in enumerate(episodes) if episode["rsim"]["strategies"]]
    return {role: _some_of(batch, played) for role, batch in rows.items()}


def every_row(*batches: dict[str, KVBatchMeta]) -> KVBatchMeta:
    """All rows of several batches by role, each once: verl clears them from TransferQueue at the end of the step."""
    metas = [meta for batch in batches for meta in batch.values()]
    tags = {key: tag for meta in metas for key, tag in zip(meta.keys, meta.tags, strict=True)}
    return KVBatchMeta(partition_id=metas[0].partition_id, keys=list(tags), tags=list(tags.values()))


def episodes_of(reasoner_rows: KVBatchMeta) -> list[dict[str, Any]]:
    """The ``extra_fields`` of the episodes: the dialogue's summary and the rewards."""
    data = tq.kv_batch_get(
        keys=reasoner_rows.keys, partition_id=reasoner_rows.partition_id, select_fields=["extra_fields"]
    )
    return [getattr(value, "data", value) for value in data["extra_fields"]]


def episode_metrics(episodes: list[dict[str, Any]]) -> dict[str, float]:
    """Dialogue, strategy and reward metrics of a batch."""
    summaries, infos = [e["rsim"] for e in episodes], [e["reward_extra_info"] for e in episodes]
    by_strategy = strategy_metrics(summaries, [info["acc"] for info in infos])
    return rollout_metrics(summaries) | by_strategy | reward_metrics(infos)


class RsimSampler:
    """verl's replay buffer, but a batch without episodes is an error with a culprit, and a validation batch holds
    the reasoner's rows only.

    verl decodes every validation row with the reasoner's tokenizer. What both did is in ``episodes``.
    """

    def __init__(self, inner: Any, poll_seconds: float, watchdog: Watchdog):
        self.inner, self.watchdog = inner, watchdog
        self.inner.poll_interval = poll_seconds
        self.episodes: list[dict[str, Any]] = []

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """As verl's.

        Raises:
            ConfigError: groups are to be filtered by a value that no reward manager returned.
            JobDied: not one episode of the batch came through.
        """
        try:
            batch, metrics = self.inner.sample(
                global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
            )
        except RuntimeError as error:
            if NO_METRIC in str(error):
                fix = "the reward manager returns no such value; choose acc, planner_reward or reasoner_reward"
                raise ConfigError("algorithm.filter_groups.metric", self.inner.filter_groups_metric, fix) from error
            if NO_ROWS not in str(error):
                raise
            raise self._none_left() from error
        if partition_id != "val":
            return batch, metrics
        rows = split_by_role(batch)
        if not rows["reasoner"].keys:
            raise self._none_left()
        self.episodes += episodes_of(rows["reasoner"])
        tq.kv_clear(keys=rows["planner"].keys, partition_id=partition_id)
        return rows["reasoner"], metrics

    def _none_left(self) -> JobDied:
        """The error of a batch without episodes; raises another one if a process is gone."""
        self.watchdog.check()
        failed = self.watchdog.failures()
        return JobDied(f"every episode of the batch failed{failed}; the tracebacks are in the log above")
