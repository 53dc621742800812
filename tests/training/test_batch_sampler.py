"""A batch of episodes: what is learned from, what is cleared, and what an empty one is called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transfer_queue import KVBatchMeta

from verl_rsim.training.batch_sampler import RsimReplayBuffer, all_rows, drop_unplayed
from verl_rsim.training.trainer import RsimTrainer, Stage
from verl_rsim.utils.errors import ConfigError, JobDied


def rows_of(role: str, *uids: str) -> KVBatchMeta:
    keys = [f"{uid}_0_{('planner', 'reasoner').index(role)}" for uid in uids]
    return KVBatchMeta(partition_id="train", keys=keys, tags=[{"seq_len": len(key)} for key in keys])


def episodes(*turns: int) -> list[dict]:
    return [{"rsim": {"strategies": [3] * count}} for count in turns]


def test_episodes_without_a_turn_are_not_learned_from():
    rows = {role: rows_of(role, "a", "b", "c") for role in ("planner", "reasoner")}
    played = drop_unplayed(rows, episodes(2, 0, 1))
    assert {role: batch.keys for role, batch in played.items()} == {
        "planner": ["a_0_0", "c_0_0"],
        "reasoner": ["a_0_1", "c_0_1"],
    }
    assert played["planner"].tags == [{"seq_len": 5}] * 2


def test_every_row_is_given_back_once_padding_and_rows_without_a_turn_too():
    rows = {role: rows_of(role, "a", "b") for role in ("planner", "reasoner")}
    learned = {"planner": rows_of("planner", "b", "pad"), "reasoner": rows_of("reasoner", "b")}
    found = all_rows(rows, learned)
    assert sorted(found.keys) == ["a_0_0", "a_0_1", "b_0_0", "b_0_1", "pad_0_0"]
    assert len(found.tags) == 5


@pytest.mark.parametrize("turns", [(1, 0), (0, 0)], ids=["one of two", "none"])
def test_a_step_hands_verl_the_padding_to_clear(monkeypatch, turns):
    """verl clears the rows that a step returns; its padding would else stay in TransferQueue for ever."""
    rows = {role: rows_of(role, "a", "b") for role in ("planner", "reasoner")}
    seen = {}

    class Trainer(RsimTrainer):
        def __init__(self):
            self.global_steps, self.rsim = 1, SimpleNamespace(reward=SimpleNamespace(group_diversity=0.0))
            self.schedule = SimpleNamespace(at=lambda step: Stage(9, 0.5, 0.5), index=lambda step: 0)

        def _sample(self, prompts, metrics, timing):
            return KVBatchMeta(partition_id="train", keys=[], tags=[])

        def _update_policies(self, rows, stage, metrics, timing):
            seen.update(stage=stage, keys=[*rows["planner"].keys, *rows["reasoner"].keys])
            padded = {}
            for index, (role, batch) in enumerate(rows.items()):
                keys, tags = [*batch.keys, f"pad_0_{index}"], [*batch.tags, {}]
                padded[role] = KVBatchMeta(partition_id="train", keys=keys, tags=tags)
            return padded

        def _log_episodes(self, episodes):
            pass

        def _raise_alarms(self, metrics):
            pass

    infos = [{**episode, "reward_extra_info": {}} for episode in episodes(*turns)]
    for name, value in (
        ("split_by_role", lambda batch: rows),
        ("episodes_of", lambda rows: infos),
        ("episode_metrics", lambda episodes: {}),
        ("group_metrics", lambda keys, infos: {}),
    ):
        monkeypatch.setattr(f"verl_rsim.training.trainer.{name}", value)
    given_back = Trainer()._step_once({}, {}, 2)
    assert sorted(given_back.keys) == ["a_0_0", "a_0_1", "b_0_0", "b_0_1", "pad_0_0", "pad_0_1"]
    assert seen["keys"] == (["a_0_0", "a_0_1"] if any(turns) else [])
    assert seen["stage"] == (Stage(9, 0.5, 0.5) if any(turns) else Stage(9, 0.0, 0.0)), "nothing to learn from"


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ("Sync replay buffer selected terminal groups with no materializable trajectories.", JobDied, "every episode"),
        ("Finished groups are missing DAPO metric 'score': ['a']", ConfigError, r"filter_groups\.metric.*choose acc"),
        ("Storage capacity exceeded", RuntimeError, "Storage capacity exceeded"),
    ],
)
def test_only_an_empty_batch_is_called_one(said, error, match):
    def sample(**kwargs):
        raise RuntimeError(said)

    inner = SimpleNamespace(sample=sample, filter_groups_metric="score")
    watchdog = SimpleNamespace(check=lambda: None, failures=lambda: "")
    with pytest.raises(error, match=match) as raised:
        RsimReplayBuffer(inner, 0.1, watchdog).sample(1, "train", 4)
    assert isinstance(raised.value, error)
