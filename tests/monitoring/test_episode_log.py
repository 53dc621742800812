"""Episode records: what is kept of a dialogue, and files that survive kills, full disks and other versions."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import os

import pytest
from support.episode_records import episode, turn

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Generation, Limits
from verl_rsim.core.episode_record import SCHEMA, from_json, is_sampled, question_id, record_of, to_json, turn_record
from verl_rsim.monitoring.episode_log import EpisodeLog, log_files, read_log
from verl_rsim.utils.errors import DataError


def test_a_dialogue_becomes_a_record_with_its_rewards(letters):
    async def planner(request):
        return Generation((ord("3" if request.turn == 0 else "9"),), (-1.5,))

    async def reasoner(request):
        text = "step\n\n" if request.turn == 0 else "two␄"
        ids = tuple(letters.encode(text))
        return Generation(ids, tuple(-0.5 - i for i in range(len(ids))))

    messages = [{"role": "user", "content": "1 + 1?"}]
    limits = Limits(6, 20, 20, 5000, 500, 500, 900)
    played = asyncio.run(Dialogue(letters, letters, limits).play(messages, planner, reasoner))
    record = record_of(
        map(turn_record, played.turns),
        played.stop,
        messages,
        kind="train",
        step=7,
        sample=2,
        truth="2",
        data_source="sums",
        uid="u",
        run="p/e",
        weights_version=6,
    ).scored(
        {"acc": 1.0, "reasoner_reward": 1.0, "planner_reward": 1.1, "planner_accuracy": 1.0, "planner_termination": 0.1}
    )

    assert record.turns[0] == turn("deliberative_thinking", "step\n\n", tokens=6, log_prob=-1.5, log_prob_mean=-3.0)
    assert (record.turns[1].end, record.turns[1].tokens, record.answer) == ("eos", 4, "two")
    assert (record.stop, record.right, record.reason) == ("termination", True, None)
    assert record.planner_parts == {"accuracy": 1.0, "termination": 0.1}
    assert from_json(to_json(record)) == record


def test_a_question_keeps_its_id_and_a_sample_its_members():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    assert question_id(chat, "2") == question_id([dict(m) for m in chat], "2") != question_id(chat, "3")
    members = [is_sampled(0.1, "q", 3, sample) for sample in range(10_000)]
    assert members == [is_sampled(0.1, "q", 3, sample) for sample in range(10_000)]
    assert sum(members) == pytest.approx(1000, abs=100)
    assert is_sampled(1.0, "q")
    assert not is_sampled(0.0, "q")


def test_numbers_that_are_not_finite_and_odd_text_are_written_as_json():
    odd = episode(turns=(turn("validation", "\ud800 [bold] \u2028", log_prob=-math.inf, log_prob_mean=math.nan),))
    read = from_json(to_json(odd).encode("utf-8", "replace"))
    assert (read.turns[0].log_prob, read.turns[0].log_prob_mean) == (None, None)
    assert read.turns[0].text == "? [bold] \u2028"


def test_newer_fields_are_left_out_and_a_newer_schema_is_refused(tmp_path):
    line = json.loads(to_json(episode("validation")))
    line["mood"] = line["turns"][0]["mood"] = "good"
    assert from_json(json.dumps(line)) == episode("validation")

    (tmp_path / "new.jsonl").write_text(json.dumps(line | {"schema": SCHEMA + 1}) + "\n")
    with pytest.raises(DataError, match=r"new\.jsonl, line 1: is of schema 2, .* upgrade verl-rsim"):
        list(read_log(tmp_path / "new.jsonl"))
    with pytest.raises(DataError, match="is no episode record"):
        from_json('{"schema": 1, "turns": []}')


def test_a_file_cut_at_any_byte_of_its_last_member_keeps_all_before_it(tmp_path):
    log = EpisodeLog(tmp_path)
    first = [episode("validation", "termination", sample=i) for i in range(3)]
    last = [episode("decomposition", sample=i) for i in range(3)]
    assert log.append(first)
    (file,) = log_files(tmp_path)
    whole_members = file.path.stat().st_size
    assert log.append(last)
    data = file.path.read_bytes()
    cut = tmp_path / "cut.jsonl.gz"
    for length in range(whole_members, len(data) + 1):
        cut.write_bytes(data[:length])
        found = list(read_log(cut))
        assert found == [*first, *last][: len(found)]
        assert len(found) >= 3
    assert found == [*first, *last]


def test_plain_lines_are_read_and_a_cut_one_is_left_out(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text(to_json(episode("validation")) + "\n" + to_json(episode("validation"))[:-5])
    assert list(read_log(path)) == [episode("validation")]


def test_damage_before_the_end_is_an_error(tmp_path):
    path = tmp_path / "damaged.jsonl.gz"
    member = gzip.compress(to_json(episode("validation")).encode() + b"\n")
    path.write_bytes(member[:-6] + member)
    with pytest.raises(DataError, match=r"damaged\.jsonl\.gz: damaged before byte"):
        list(read_log(path))
    with pytest.raises(DataError, match="holds no episodes; train with"):
        list(read_log(tmp_path / "none"))


def test_a_log_that_goes_on_keeps_what_came_before(tmp_path):
    for sample in range(3):
        EpisodeLog(tmp_path, continue_last=True).append([episode("validation", sample=sample)])
    assert [record.sample for record in read_log(tmp_path)] == [0, 1, 2]
    assert [(file.start, file.part) for file in log_files(tmp_path)] == [(1, 0), (1, 1), (1, 2)]


def test_a_file_that_is_full_is_followed_by_another(tmp_path):
    log = EpisodeLog(tmp_path, max_file_mb=0.001)
    records = [episode("validation", question=os.urandom(300).hex(), sample=i) for i in range(12)]
    for record in records:
        log.append([record])
    files = log_files(tmp_path)
    assert len(files) > 3
    assert all(file.path.stat().st_size <= 1024 for file in files)
    assert list(read_log(tmp_path)) == records


def test_a_run_is_what_its_last_start_built_on(tmp_path):
    def start(from_step: int, steps: list[int], name: str) -> None:
        log = EpisodeLog(tmp_path / "episodes", from_step)
        for step in steps:
            log.append([episode("validation", step=step, run=name)])

    start(0, [0, 1], "abandoned")
    start(0, [0, 1, 2, 3], "first")
    start(2, [3, 4, 5], "second")
    start(4, [5, 6], "third")
    found = [(record.run, record.step) for record in read_log(tmp_path)]
    assert found == [("first", 0), ("first", 1), ("first", 2), ("second", 3), ("second", 4), ("third", 5), ("third", 6)]


def test_a_validation_that_a_resumed_start_repeats_counts_once(tmp_path):
    def start(from_step: int, *logged: tuple[str, int]) -> None:
        log = EpisodeLog(tmp_path / "episodes", from_step)
        for kind, step in logged:
            log.append([episode(kind=kind, step=step, run=f"from {from_step}")])

    start(0, ("validation", 0), ("train", 1), ("train", 2), ("validation", 2), ("train", 3))
    start(2, ("validation", 2), ("train", 3), ("train", 4), ("validation", 4), ("train", 5))
    start(4, ("train", 5))  # without a validation before training
    found = [(record.run, record.kind, record.step) for record in read_log(tmp_path)]
    assert found == [
        ("from 0", "validation", 0),
        ("from 0", "train", 1),
        ("from 0", "train", 2),
        ("from 2", "validation", 2),
        ("from 2", "train", 3),
        ("from 2", "train", 4),
        ("from 2", "validation", 4),
        ("from 4", "train", 5),
    ]


def test_a_full_disk_is_said_once_and_leaves_the_file_readable(tmp_path, monkeypatch, caplog):
    log, write = EpisodeLog(tmp_path), os.write
    assert log.append([episode("validation")])
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[: len(data) // 2]))
    assert not log.append([episode("validation", step=1)])
    assert not log.append([episode("validation", step=2)])
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    monkeypatch.setattr(os, "write", write)
    assert log.append([episode("validation", step=3)])
    assert [record.step for record in read_log(tmp_path)] == [0, 3]


def test_a_folder_that_cannot_be_made_does_not_break_training(tmp_path):
    (tmp_path / "file").write_text("")
    assert not EpisodeLog(tmp_path / "file" / "episodes").append([episode("validation")])
