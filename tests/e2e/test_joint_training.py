"""The whole stack on the CPU: verl's entry point, two vLLM servers, two FSDP2 workers, tiny models of two families.

One job trains on two ranks, validates and saves; a second one resumes from its middle, must reach the same numbers, and
is then killed at one engine: it must end with an error that says so and leave no process behind. The planner is a LoRA
policy in both. A third one, on one rank, has a frozen reasoner, offloads and saves for an alarm; a fourth one, with
LoRA for the reasoner, is stopped by an alarm; in a fifth one model plays both roles.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import statistics
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.job import Job
from support.paths import SUPPORT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from verl_rsim.monitoring.episode_log import read_log
from verl_rsim.training.checkpoint.store import FOLDERS, complete_checkpoints, read_state

pytestmark = pytest.mark.e2e

REWARD = SUPPORT / "varied_reward.py"
LORA = [
    "planner.model.lora_rank=8",
    "+planner.actor.checkpoint.save_lora_only=true",
    "planner.actor.optim.lr=0.01",
]
DETERMINISTIC = [
    "rsim.reward.group_diversity=0.5",
    "reward.reward_manager.name=naive",
    f"reward.custom_reward_function.path={REWARD}",
    "rsim.deterministic=true",
    "rsim.schedule=[{until:1,planner_weight:1.0,reasoner_weight:0.0},{until:2,planner_weight:0.5,reasoner_weight:0.5},"
    "{until:3,planner_weight:0.0,reasoner_weight:0.75},{until:4,planner_weight:1.0,reasoner_weight:0.0}]",
    "trainer.save_freq=1",
    "trainer.max_actor_ckpt_to_keep=null",
    "trainer.resume_mode=auto",
    "trainer.rollout_data_dir=dumps",
    "data.shuffle=true",
    "data.seed=1",
    "trainer.n_gpus_per_node=2",
    "planner.actor.use_kl_loss=true",
    *LORA,
    "rsim.console=summary",
    "rsim.alarms.step_length={action:off}",
]
OFFLOAD = [
    "planner.actor.use_kl_loss=true",
    "planner.actor.fsdp_config.param_offload=true",
    "planner.actor.fsdp_config.optimizer_offload=true",
]
CODING = [
    "data.train_files=coding.parquet",
    "data.shuffle=false",
    "rsim.max_bad_rows=1",
    "data.val_files=${oc.env:RSIM_HOME}/data/humaneval/test.parquet",
    "data.filter_overlong_prompts=true",
    "data.max_prompt_length=500",
    "planner.rollout.prompt_length=1650",
]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, home):
    """Starts jobs in one folder; kills what is left of them at the end."""
    folder = tmp_path_factory.mktemp("e2e")
    started: list[Job] = []

    def start(name: str, *overrides: str) -> Job:
        started.append(Job(folder, home, name, *overrides))
        return started[-1]

    start.folder = folder
    yield start
    for job in started:
        job.stop()


@pytest.fixture(scope="module")
def whole(jobs) -> Job:
    """Four steps through all stages of a schedule, saved after each, validated before and after."""
    job = jobs("whole", *DETERMINISTIC, "trainer.total_training_steps=4", "trainer.test_freq=4")
    assert job.wait(600) == 0, job.log()[-5000:]
    return job


def test_both_policies_train_by_their_stages(whole):
    steps = whole.metrics()
    assert [(steps[s]["planner/weight"], steps[s]["reasoner/weight"]) for s in (1, 2, 3, 4)] == [
        (1.0, 0.0),
        (0.5, 0.5),
        (0.0, 0.75),
        (1.0, 0.0),
    ]
    for step in (1, 2, 3, 4):
        for role in ("planner", "reasoner"):
            worked = steps[step][f"{role}/weight"] > 0
            assert (f"timing_s/{role}/update" in steps[step]) == worked, "a weight of 0 costs nothing"
            assert (steps[step].get(f"{role}/grad_norm", 0.0) > 0) == worked
    assert all(steps[s]["rsim/failed"] == 0 for s in (1, 2, 3, 4))


def test_a_weight_of_zero_leaves_every_bit_of_a_policy_as_it_was(whole, jobs):
    def weights(step: int, role: str) -> list[bytes]:
        folder = jobs.folder / f"checkpoints/global_step_{step}/{FOLDERS[role]}"
        return [(folder / f"model_world_size_2_rank_{rank}.pt").read_bytes() for rank in (0, 1)]

    for step in (2, 3, 4):
        for role in ("planner", "reasoner"):
            worked = whole.metrics()[step][f"{role}/weight"] > 0
            assert (weights(step, role) != weights(step - 1, role)) == worked, (step, role)


def test_servers_and_workers_agree_on_log_probs_after_every_sync(whole):
    """In float32 on both sides; a server that kept its old weights would be off by far more at this learning rate."""
    steps = whole.metrics()
    gaps = {(s, r): steps[s].get(f"{r}/log_prob_gap/mean") for s in (1, 2, 3, 4) for r in ("planner", "reasoner")}
    seen = {key: gap for key, gap in gaps.items() if gap is not None}
    assert len(seen) == 5
    assert all(gap <= 1e-4 for gap in seen.values()), seen
    for step, role in seen:
        assert abs(steps[step][f"{role}/ppo_kl"]) <= 1e-4, "the only mini-batch of a step is exactly on-policy"


def test_the_planner_alone_has_a_kl_term_that_starts_at_zero(whole):
    steps = whole.metrics()
    assert steps[1]["planner/kl_loss"] == pytest.approx(0, abs=1e-6)
    assert steps[4]["planner/kl_loss"] > 1e-6
    assert not any("reasoner/kl_loss" in step for step in steps.values())


def test_the_planner_learns_from_all_parts_of_its_reward(whole):
    steps = whole.metrics()
    for step in (1, 2, 3, 4):
        assert 0 < steps[step]["planner/reward/group_diversity"] <= 0.5, "random choices of siblings differ"
    for step in (1, 2, 4):
        assert steps[step]["planner/score/mean"] == pytest.approx(parts_of_reward(steps[step]), abs=1e-5)


def test_advantages_are_each_groups_standardised_scores_times_the_weight(whole, jobs):
    """GRPO by hand, from the scores that were dumped."""
    for step, role in ((1, "planner"), (2, "planner"), (2, "reasoner"), (3, "reasoner"), (4, "planner")):
        groups = defaultdict(list)
        for line in (jobs.folder / f"dumps/{role}/{step}.jsonl").read_text().splitlines():
            row = json.loads(line)
            groups[row["uid"].split("_")[0]].append(row["score"])
        assert [len(scores) for scores in groups.values()] == [4] * 4
        found = whole.metrics()[step]
        by_hand = [
            found[f"{role}/weight"] * (score - statistics.mean(scores)) / (statistics.stdev(scores) + 1e-6)
            for scores in groups.values()
            for score in scores
        ]
        assert max(by_hand) > 0
        assert found[f"{role}/advantages/max"] == pytest.approx(max(by_hand), abs=1e-5)
        assert found[f"{role}/advantages/min"] == pytest.approx(min(by_hand), abs=1e-5)


def parts_of_reward(step: dict) -> float:
    return sum(v for key, v in step.items() if key.startswith("planner/reward/") and not key.endswith("/std"))


def test_the_untrained_planner_is_uniform_over_nine(whole):
    assert whole.metrics()[1]["planner/entropy"] == pytest.approx(math.log(9), abs=0.1)


def test_every_logged_name_is_documented(whole, documented):
    patterns = documented().values()
    names = {name.removeprefix("val-") if name.startswith(("val-r", "val-p", "val-s", "val-t")) else name
             for step in whole.metrics().values() for name in step}  # fmt: skip
    assert sorted(name for name in names if not any(pattern.fullmatch(name) for pattern in patterns)) == []


def test_each_step_says_what_the_strategies_did_and_whether_an_alarm_is_on(whole):
    for step in (1, 2, 3, 4):
        found = whole.metrics()[step]
        assert {"alarm/one_strategy", "planner/zero_groups", "reasoner/server_seconds"} <= set(found)
        assert "alarm/step_length" not in found, "it is off"
        assert any(name.endswith("/turn/1") for name in found)
    assert "step 2 of 4" in whole.log(), "one screen a step"
    assert " - planner/" not in whole.log(), "in the place of verl's line"


def test_validation_reports_both_roles(whole):
    for step in (0, 4):
        found = whole.metrics()[step]
        assert {"val-reasoner/acc", "val-planner/reward", "val-rsim/turns", "val-strategy/entropy"} <= set(found)
        assert found["val-rsim/failed"] == 0
        assert any(key.startswith("val-core/arithmetic/acc") for key in found)


def test_every_episode_of_a_validation_is_logged(whole, jobs):
    steps = whole.metrics()
    found = list(read_log(jobs.folder / "checkpoints"))
    for step in (0, 4):
        played = [record for record in found if (record.kind, record.step) == ("validation", step)]
        assert len(played) == steps[step]["val-rsim/episodes"] == 4
        assert sum(record.acc for record in played) / 4 == pytest.approx(steps[step]["val-reasoner/acc"], abs=1e-4)
        assert sum(record.planner_reward for record in played) / 4 == pytest.approx(
            steps[step]["val-planner/reward"], abs=1e-4
        )
        assert {record.weights_version for record in played} == {step}
        for record in played:
            assert sum(record.planner_parts.values()) == pytest.approx(record.planner_reward, abs=1e-4)
            assert all(turn.log_prob < 0 and turn.log_prob_mean < 0 for turn in record.turns)
    asked = {step: {r.question_id for r in found if (r.kind, r.step) == ("validation", step)} for step in (0, 4)}
    assert asked[0] == asked[4], "the same questions before and after"


def test_the_checkpoint_exports_as_two_models_and_an_adapter(whole, jobs, tmp_path):
    import torch
    from peft import load_peft_weights
    from transformers import AutoConfig, AutoTokenizer

    from verl_rsim.training.checkpoint.export import export_policies

    folders = export_policies(jobs.folder / "checkpoints", tmp_path)
    assert set(folders) == {"planner", "reasoner"}
    configs = {role: AutoConfig.from_pretrained(folder) for role, folder in folders.items()}
    types = {role: config.model_type for role, config in configs.items()}
    assert types == {"planner": "qwen2", "reasoner": "llama"}
    assert {config.dtype for config in configs.values()} == {torch.float32}, "as the servers computed"
    assert len(AutoTokenizer.from_pretrained(folders["planner"])) != len(
        AutoTokenizer.from_pretrained(folders["reasoner"])
    )
    assert not (folders["reasoner"] / "lora_adapter").exists()
    adapter = load_peft_weights(folders["planner"] / "lora_adapter", device="cpu")
    assert any(value.abs().max() > 0.01 for name, value in adapter.items() if "lora_B" in name), "it starts at zero"
    saved = jobs.folder / "checkpoints/global_step_4/planner/model_world_size_2_rank_0.pt"
    saved = torch.load(saved, weights_only=False)
    assert all("lora_" in name for name in saved), "save_lora_only"


def test_each_policys_rows_are_dumped_in_its_own_words(whole, jobs):
    texts = {}
    for role in ("planner", "reasoner"):
        lines = (jobs.folder / f"dumps/{role}/1.jsonl").read_text().splitlines()
        assert len(lines) == 16
        texts[role] = [json.loads(line) for line in lines]
    assert all('Answer each "Next strategy:" with one number' in row["input"] for row in texts["planner"])
    assert not any("next strategy" in row["input"].lower() for row in texts["reasoner"])


def test_nothing_is_left_of_a_finished_job(whole):
    assert_nothing_is_left(whole)


def assert_nothing_is_left(job: Job) -> None:
    end = time.monotonic() + 30
    while job.processes() and time.monotonic() < end:
        time.sleep(0.5)
    assert not [" ".join(process.cmdline())[:80] for process in job.processes()]


SAME = ("planner/loss", "reasoner/loss", "planner/grad_norm", "reasoner/grad_norm", "planner/reward", "rsim/turns",
        "strategy/entropy", "planner/entropy", "reasoner/entropy", "planner/weight", "rsim/step_tokens")  # fmt: skip


def test_resuming_gives_the_same_numbers_and_a_killed_engine_ends_the_job(whole, jobs):
    """The planner on GPUs of its own, which changes no number: both policies then learn at the same time."""
    for step in (2, 3, 4):  # as if it had been stopped after step 1
        shutil.rmtree(jobs.folder / f"checkpoints/global_step_{step}")
    earlier = [{"step": step, "data": {"earlier": step}} for step in (0, 1, 2)]
    (jobs.folder / "resumed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in earlier))
    job = jobs("resumed", *DETERMINISTIC, "rsim.planner_pool={enable:true,n_gpus_per_node:2}",
               "trainer.total_training_steps=1000", "trainer.val_before_train=false",
               "trainer.test_freq=-1", "trainer.save_freq=-1")  # fmt: skip
    job.wait_for_step(4, 600)
    assert "Resumed both policies" in job.log()
    assert {process.environ()["RSIM_JOB"] for process in processes(job, "EngineCore")} == {"1"}, "whose they are"
    assert len(read_state(jobs.folder / "checkpoints/global_step_1").alarms.lengths) == 1, "the alarms' counts go along"
    assert {step for step, found in job.metrics().items() if "earlier" in found} == {0, 1}, "what was taken over"
    for step in (2, 3, 4):
        expected, found = whole.metrics()[step], job.metrics()[step]
        for key in SAME:
            assert (key in expected) == (key in found), key
            if key in expected:
                assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-6), f"{key} at step {step}"

    assert re.search(r"JobDied: (planner|reasoner) server: its vLLM engine died", kill(job, "EngineCore", 4))


def write_coding_tasks(path: Path, home: Path) -> None:
    """HumanEval's, after one whose tests cannot be used."""
    rows = pq.read_table(home / "data/humaneval/train.parquet").to_pylist()
    short = min(rows, key=lambda row: len(row["prompt"][0]["content"]))
    broken = {"style": "rule", "ground_truth": '{"kind": "asserts", "test_list": ["assert ("]}'}
    pq.write_table(pa.Table.from_pylist([short | {"reward_model": broken}, *rows]), path)


def test_a_frozen_reasoner_only_serves_and_a_killed_worker_ends_the_job(jobs, home):
    """Chat injection, free decoding, turn-level advantages and coding tasks, the other ways, on the same occasion."""
    write_coding_tasks(jobs.folder / "coding.parquet", home)
    job = jobs("frozen", "rsim.train=[planner]", "rsim.schedule=joint", "rsim.injection=chat",
               "rsim.planner_decoding=free", *CODING, *OFFLOAD, "rsim.planner_adv_estimator=turn_grpo",
               "trainer.default_local_dir=frozen", "trainer.total_training_steps=1000",
               "trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=2",
               "trainer.max_actor_ckpt_to_keep=null",
               "rsim.alarms.one_strategy={action:save,limit:0.0,steps:1}")  # fmt: skip
    job.wait_for_step(3, 600)
    steps = job.metrics()
    left_out = [json.loads(line) for line in (jobs.folder / "frozen/bad_rows.jsonl").read_text().splitlines()]
    assert [(row["number"], row["column"]) for row in left_out] == [(0, "reward_model.ground_truth")]
    assert [steps[step]["rsim/failed"] for step in (1, 2, 3)] == [0, 0, 0], "it trains on a copy without that row"
    assert [steps[step]["rsim/episodes"] for step in (1, 2, 3)] == [16, 16, 16]
    for step in (1, 2, 3):
        assert (steps[step]["planner/weight"], steps[step]["reasoner/weight"]) == (0.5, 0.0)
        assert steps[step]["planner/log_prob_gap/mean"] <= 1e-4, "free decoding: over the whole vocabulary"
        assert "timing_s/reasoner/update" not in steps[step]
        assert steps[step]["reasoner/acc"] == steps[step]["reasoner/passed"] == 0, "random letters pass no test"
        assert steps[step]["planner/score/mean"] == pytest.approx(parts_of_reward(steps[step]), abs=1e-5)
        reasons = {key: value for key, value in steps[step].items() if key.startswith("reasoner/reason/")}
        assert sum(reasons.values()) == pytest.approx(1)
    assert steps[1]["planner/kl_loss"] == pytest.approx(0, abs=1e-7), "a reference of its own, in float32 as the policy"
    assert any(steps[step]["rsim/unparsed"] > 0 for step in (1, 2, 3)), "a random planner writes no strategy"
    saved = jobs.folder / "frozen/global_step_2"
    assert {path.name for path in saved.iterdir()} == {"planner", "data.pt", "rsim.json"}
    assert job.log().count("WARNING: step 1: alarm one_strategy: the share of the commonest strategy is") == 1
    by_alarm = [path.name for path in complete_checkpoints(saved.parent)]
    assert by_alarm[:2] == ["global_step_1", "global_step_2"], "the first by the alarm, which saves once"
    assert re.search(r"'--load_format',\s*'auto'", re.sub(r"\x1b\[[0-9;]*m|\(vLLMHttpServer pid=\d+\)", "", job.log()))
    assert "died" in kill(job, "ray::WorkerDict", 2)


def test_an_alarm_stops_the_job_and_the_last_checkpoint_stays(jobs):
    job = jobs("stopped", "rsim.schedule=joint", "actor_rollout_ref.model.lora_rank=8",
               "rsim.alarms.zero_groups={action:stop,limit:0.1,steps:2}",
               "trainer.default_local_dir=stopped", "trainer.total_training_steps=1000", "trainer.save_freq=1",
               "trainer.val_before_train=false", "trainer.test_freq=-1",
               "trainer.logger=[file,tensorboard]")  # fmt: skip
    assert job.wait(300) == 1
    said = (
        r"TrainingCollapsed: step 2: .*alarm zero_groups \(reasoner\): .* above rsim.alarms.zero_groups.limit=0.1 for 2"
    )
    assert re.search(said, job.log()), job.log()[-3000:]
    assert set(job.metrics()) == {1, 2}, "the step that stops is logged"
    assert job.metrics()[2]["alarm/zero_groups"] == 1
    assert job.metrics()[1]["reasoner/log_prob_gap/mean"] <= 1e-4, "the adapter is served"
    assert [path.name for path in complete_checkpoints(jobs.folder / "stopped")] == ["global_step_1"]
    (events,) = (jobs.folder / "tensorboard_log").rglob("events.*")
    for name in ("strategy/entropy", "planner/pg_loss", "reasoner/reward", "alarm/zero_groups"):
        logged = {event.step: event.value for event in EventAccumulator(str(events)).Reload().Scalars(name)}
        assert logged == pytest.approx({step: job.metrics()[step][name] for step in (1, 2)}), name
    assert_nothing_is_left(job)


def test_with_shared_weights_one_model_learns_from_both_roles(jobs, tmp_path):
    from verl_rsim.training.checkpoint.export import export_policies

    job = jobs("shared", "rsim.shared_weights=true", "planner.model.path=null", "rsim.lambda=0.3",
               "rsim.schedule=[{until:1,planner_weight:1.0,reasoner_weight:0.0},"
               "{until:2,planner_weight:0.3,reasoner_weight:0.7}]", "reward.reward_manager.name=naive",
               f"reward.custom_reward_function.path={REWARD}", "trainer.default_local_dir=shared",
               "trainer.total_training_steps=1000", "trainer.val_before_train=false", "trainer.test_freq=-1",
               "trainer.save_freq=2")  # fmt: skip
    job.wait_for_step(3, 600)
    assert len(processes(job, "EngineCore")) == len(processes(job, "ray::WorkerDict")) == 1
    steps = job.metrics()
    for step in (1, 2, 3):
        found = steps[step]
        assert found["shared/grad_norm"] > 0
        assert abs(found["shared/ppo_kl"]) <= 1e-4, "the only mini-batch of a step is exactly on-policy"
        for role in ("planner", "reasoner"):
            if found[f"{role}/weight"] > 0:
                assert found[f"{role}/log_prob_gap/mean"] <= 1e-3, (step, role)
        assert not {"planner/grad_norm", "reasoner/grad_norm"} & set(found), "there is one update"
    assert steps[1]["planner/entropy"] == pytest.approx(math.log(9), abs=0.1), "over the labels"
    assert "reasoner/entropy" not in steps[1]
    assert steps[2]["reasoner/entropy"] > 3, "over the vocabulary"
    saved = jobs.folder / "shared/global_step_2"
    assert {path.name for path in saved.iterdir()} == {"actor", "data.pt", "rsim.json"}
    assert set(export_policies(saved, tmp_path)) == {"shared"}


def processes(job: Job, name: str) -> list[psutil.Process]:
    """The job's processes of this name."""
    return [process for process in job.processes() if name in " ".join(process.cmdline())]


def kill(job: Job, name: str, count: int) -> str:
    """Kill one of the job's processes of this name in mid-step; the job must end by itself, whole, within a minute."""
    found = processes(job, name)
    assert len(found) == count, [p.cmdline() for p in found]
    killed = time.monotonic()
    found[0].send_signal(signal.SIGKILL)
    assert job.wait(60) != 0
    assert time.monotonic() - killed < 60
    assert_nothing_is_left(job)
    return job.log()
