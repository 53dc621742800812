"""An evaluation without weights: budgets, conditions, records, resuming, reports."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console
from support.rule_engine import rule_models

from verl_rsim.core.controls import CONTROLS, FIXED_EACH, PLANNER, parse_controls
from verl_rsim.core.episode import Request
from verl_rsim.core.episode_record import question_id
from verl_rsim.core.rules import Rules
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.evaluation.conditions import ConditionPlayer, SamplingSettings
from verl_rsim.evaluation.config import EvaluationSettings, ModelConfig
from verl_rsim.evaluation.dataset import load_questions
from verl_rsim.evaluation.engines.base import Sampling
from verl_rsim.evaluation.models import Reasoner
from verl_rsim.evaluation.records import RECORDS, Record, RecordFile, read_records
from verl_rsim.evaluation.reports.summary import report
from verl_rsim.evaluation.reports.write import compare_evaluations, write_report
from verl_rsim.evaluation.runner import evaluate
from verl_rsim.monitoring.episode_log import read_log
from verl_rsim.reward.config import ScoringConfig
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.errors import ConfigError, DataError, EngineError

RULES = Rules(max_turns=3, max_step_tokens=20, max_answer_tokens=30, max_prompt_tokens=2000)
ENDLESS = "so we go on and on, " * 20


@pytest.fixture(scope="module")
def scorer():
    scorer = Scorer(ScoringConfig())
    yield scorer
    scorer.close()


@pytest.fixture(scope="module")
def dataset(home):
    return load_questions(str(home / "data/arithmetic/test.parquet"), 5)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def sometimes_right(dataset):
    """Answers right when its seed is even; states a number in any case."""
    truths = {question.messages[-1]["content"]: question.truth for question in dataset.questions}

    def rule(prompt: str, seed: int) -> str:
        truth = next(truth for content, truth in truths.items() if content in prompt)
        return f"\\boxed{{{truth if seed % 2 == 0 else 'none'}}}␄"

    return rule


def make(letters, rule, controls=CONTROLS, rules=RULES, **options) -> ConditionPlayer:
    planner, reasoner = rule_models(letters, rule, **options)
    sampling = SamplingSettings(Sampling(1.0), Sampling(0.5), seed=3)
    return ConditionPlayer(reasoner, {PLANNER: planner}, controls, rules, sampling)


def run(player, dataset, scorer, folder, **options) -> list[Record]:
    return asyncio.run(evaluate(player, dataset, scorer, folder, quiet(), **options))


def test_every_condition_may_write_as_much_and_no_more(letters, dataset, scorer, tmp_path):
    player = make(letters, lambda prompt, seed: ENDLESS)
    records = run(player, dataset, scorer, tmp_path)
    assert {record.condition for record in records} == {*CONTROLS, PLANNER}
    assert RULES.budget == 2 * 20 + 30
    for record in records:
        if record.condition in ("alone", "self_strategies"):
            assert record.reasoner_tokens == RULES.budget
        else:
            answers = record.strategies.count("termination")
            assert record.reasoner_tokens == 20 * (len(record.strategies) - answers) + 30 * answers <= RULES.budget
            assert record.stop in ("max_turns", "termination")


def test_the_row_has_room_for_the_whole_budget_behind_the_longest_instructions(letters):
    planner, reasoner = rule_models(letters, lambda prompt, seed: ENDLESS)
    player = ConditionPlayer(reasoner, {PLANNER: planner}, (), RULES, SamplingSettings())
    dialogue = player._dialogues[PLANNER]
    wordiest = max(range(9), key=lambda i: len(dialogue.injected_ids(i, None)))

    async def choose(request: Request):
        only = dataclasses.replace(request, allowed_ids=(dialogue.label_ids[wordiest],))
        return await planner.sampler(Sampling())(only)

    episode = asyncio.run(dialogue.play([{"role": "user", "content": "?"}], choose, reasoner.sampler(Sampling())))
    assert [len(turn.step.token_ids) for turn in episode.turns] == [20, 20, 20]


def test_what_each_control_is(letters, dataset, scorer, tmp_path):
    player = make(letters, lambda prompt, seed: "a step\n\nmore", rules=dataclasses.replace(RULES, max_turns=6))
    records = {(record.condition, record.question): record for record in run(player, dataset, scorer, tmp_path)}
    question = dataset.questions[0].id
    for name in FIXED_EACH:
        assert set(records[name, question].strategies) == {name.removeprefix("fixed:")}
    assert records["fixed:termination", question].stop == "termination"
    drawn = {records["random", q.id].strategies for q in dataset.questions}
    assert len(drawn) > 1
    assert records["alone", question].strategies == ()
    assert "random" in player.conditions
    assert all(records[name, question].planner_tokens == 0 for name in CONTROLS)
    assert records[PLANNER, question].planner_tokens == len(records[PLANNER, question].strategies)
    prompts = [letters.decode(ids) for ids, _ in player.reasoner.engine.requests]
    menus = [prompt for prompt in prompts if STRATEGIES[1].description in prompt and "name it" in prompt]
    assert len(menus) == len(dataset.questions)


def test_a_planner_that_writes_freely_is_read_as_in_training(letters, dataset, scorer, tmp_path):
    rules = dataclasses.replace(RULES, planner_decoding="free")
    player = make(letters, lambda prompt, seed: "7, I think\n\nmore", ("random",), rules)
    records = run(player, dataset, scorer, tmp_path)
    assert {r.strategies for r in records if r.condition == PLANNER} == {(STRATEGIES[6].name,) * 3}
    assert len({r.strategies for r in records if r.condition == "random"}) > 1
    asked = [params for _, params in player.planners[PLANNER].engine.requests]
    assert asked
    assert not any("allowed_token_ids" in params for params in asked)


def test_temperature_and_seed_reach_the_engines(letters, dataset, scorer, tmp_path):
    def once(folder):
        player = make(letters, lambda prompt, seed: "\\boxed{1}␄", controls=("alone",))
        records = run(player, dataset, scorer, folder, samples=2)
        timeless = (dataclasses.replace(r, planner_seconds=0, reasoner_seconds=0, seconds=0) for r in records)
        return player, sorted(timeless, key=lambda record: record.key)

    player, first = once(tmp_path / "a")
    assert {params["temperature"] for _, params in player.reasoner.engine.requests} == {1.0}
    assert {params["temperature"] for _, params in player.planners[PLANNER].engine.requests} == {0.5}
    seeds = [params["seed"] for _, params in player.reasoner.engine.requests]
    assert len(set(seeds)) == len(seeds)
    assert once(tmp_path / "b")[1] == first


def test_concurrency_is_bounded(letters, dataset, scorer, tmp_path):
    player = make(letters, lambda prompt, seed: ENDLESS)
    run(player, dataset, scorer, tmp_path, concurrency=3)
    assert player.reasoner.engine.most_at_once <= 3


def test_a_failed_engine_leaves_what_is_done_and_the_next_start_plays_the_rest(letters, dataset, scorer, tmp_path):
    rule = sometimes_right(dataset)
    with pytest.raises(EngineError, match="engine failed"):
        run(make(letters, rule, controls=("alone",), dies_after=4), dataset, scorer, tmp_path, concurrency=2)
    half = read_records(tmp_path)
    assert 0 < len(half) < 10
    path = tmp_path / RECORDS
    path.write_bytes(path.read_bytes()[:-15])  # as if the kill had come in the middle of a line
    player = make(letters, rule, controls=("alone",))
    records = run(player, dataset, scorer, tmp_path)
    assert len(records) == len({record.key for record in records}) == 2 * len(dataset.questions)
    assert len(player.reasoner.engine.requests) < sum(max(1, len(r.strategies)) for r in records)
    assert read_records(tmp_path) == records
    finished = make(letters, rule, controls=("alone",))
    run(finished, dataset, scorer, tmp_path)
    assert finished.reasoner.engine.requests == []


def test_a_folder_grows_but_never_mixes_two_evaluations(letters, dataset, scorer, tmp_path):
    rule = sometimes_right(dataset)
    run(make(letters, rule, controls=("alone",)), dataset, scorer, tmp_path)
    more = run(make(letters, rule, controls=("alone", "random")), dataset, scorer, tmp_path, samples=2)
    assert len(more) == 3 * 2 * len(dataset.questions)
    episodes = {(e.condition, e.uid, e.sample): e for e in read_log(tmp_path)}
    assert set(episodes) == {record.key for record in more}, "of both starts"
    for record in more:
        played = episodes[record.key]
        assert (played.kind, played.acc, played.reason, played.stop) == (
            "evaluation", record.correct, record.reason, record.stop
        )  # fmt: skip
        assert tuple(turn.strategy for turn in played.turns if turn.strategy) == record.strategies
        assert sum(turn.tokens for turn in played.turns) == record.reasoner_tokens
        assert (played.turns[0].log_prob is None) == (record.condition == "alone"), "nobody chose"
        assert played.planner_reward is None
    question = dataset.questions[0]
    assert episodes["alone", question.id, 0].question_id == question_id(question.messages, question.truth), "training's"
    with pytest.raises(ConfigError, match=r"out=.*rules.*choose another folder"):
        run(make(letters, rule, rules=dataclasses.replace(RULES, max_turns=4)), dataset, scorer, tmp_path)


def test_the_report_is_what_the_records_say(letters, dataset, scorer, tmp_path):
    records = run(make(letters, sometimes_right(dataset)), dataset, scorer, tmp_path, samples=4)
    write_report(tmp_path, quiet())
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    write_report(tmp_path, quiet())
    assert first == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    shown = {summary.condition: summary for summary in report(records, 3).summaries}
    of_planner = [record for record in records if record.condition == PLANNER]
    assert shown[PLANNER].accuracy.mean == pytest.approx(sum(r.correct for r in of_planner) / len(of_planner))
    assert shown[PLANNER].samples == 4
    assert shown[PLANNER].best.mean >= shown[PLANNER].majority.mean >= 0
    assert sum(shown[PLANNER].stops.values()) == pytest.approx(1)
    assert sum(use.share for use in shown[PLANNER].use.values()) == pytest.approx(1)
    for strategy in STRATEGIES:
        using = [record.correct for record in of_planner if strategy.name in record.strategies]
        assert shown[PLANNER].use[strategy.name].answers == len(using)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [s["condition"] for s in saved["summaries"]] == [*CONTROLS, PLANNER]
    assert {c["control"] for c in saved["comparisons"]} == set(CONTROLS)
    rows = list(csv.DictReader((tmp_path / "conditions.csv").open()))
    assert float(rows[-1]["accuracy"]) == shown[PLANNER].accuracy.mean


def test_two_runs_are_compared_on_their_common_questions(letters, dataset, scorer, tmp_path):
    right = run(make(letters, sometimes_right(dataset), controls=()), dataset, scorer, tmp_path / "a")
    smaller = dataclasses.replace(dataset, questions=dataset.questions[1:])
    run(make(letters, lambda prompt, seed: "\\boxed{none}␄", controls=()), smaller, scorer, tmp_path / "b")
    difference = compare_evaluations(tmp_path / "a", tmp_path / "b", quiet())[PLANNER]
    assert difference.questions == len(dataset.questions) - 1
    assert difference.wins == sum(r.correct for r in right if r.question != dataset.questions[0].id)
    with pytest.raises(ConfigError, match="condition"):
        compare_evaluations(tmp_path / "a", tmp_path / "b", quiet(), ("alone",))
    with pytest.raises(DataError, match=r"manifest\.json"):
        compare_evaluations(tmp_path / "a", tmp_path / "nowhere", quiet())


def test_a_damaged_record_is_named_by_its_line(tmp_path):
    (tmp_path / RECORDS).write_text('{"condition": 1}\n{"cut')
    with pytest.raises(DataError, match=r"records\.jsonl:1: is not a record"):
        RecordFile(tmp_path)


def test_controls_by_name():
    assert parse_controls(["all"]) == CONTROLS
    assert parse_controls(["fixed", "alone"]) == ("alone", *FIXED_EACH)
    assert parse_controls(["none"]) == ()
    with pytest.raises(ConfigError, match=r"controls='fxed': there is no such control; known are all, none, alone"):
        parse_controls(["fxed"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples=0"),
        ({"samples": 4}, "temperature 0 all are equal"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"limit": 0}, "limit=0"),
        ({"concurrency": 0}, "concurrency=0"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationSettings(**settings)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [{"role": "user"}]}, r"row 0: prompt\[0\].content is None: a message needs a text"),
        (
            {"reward_model": {"style": "rule", "ground_truth": ""}},
            "row 0: reward_model.ground_truth is '': is no answer",
        ),
        ({"data_source": None}, "row 0: data_source is None: must name the dataset"),
        ({"prompt": [{"role": "assistant", "content": "hm"}]}, "the user's, not the assistant's"),
    ],
)
def test_malformed_rows(row, message, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = {
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "data_source": "arithmetic",
        "reward_model": {"style": "rule", "ground_truth": "4"},
    }
    pq.write_table(pa.Table.from_pylist([good | row]), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=message):
        load_questions(str(tmp_path / "d.parquet"))


def test_data_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"data='nothing': there is no file .*prepare-data"):
        load_questions("nothing")
    (tmp_path / "d.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="is no parquet file"):
        load_questions(str(tmp_path / "d.parquet"))


def test_a_question_has_the_same_id_everywhere_and_twins_are_told_apart(dataset, tmp_path):
    import pyarrow.parquet as pq

    rows = pq.read_table(dataset.path).slice(1, 1)
    import pyarrow as pa

    pq.write_table(pa.concat_tables([rows, rows]), tmp_path / "d.parquet")
    ids = [question.id for question in load_questions(str(tmp_path / "d.parquet")).questions]
    assert ids == [dataset.questions[1].id, f"{dataset.questions[1].id}-2"]


def test_rules_that_do_not_fit_a_model(letters):
    with pytest.raises(ConfigError, match=r"max_turns=3: leaves \d+ of the reasoner's 2100 tokens for the prompt"):
        RULES.dialogue(letters, 1 << 20, letters, 2100)
    unnamed = dataclasses.replace(RULES, max_prompt_tokens=None)
    limits = unnamed.dialogue(letters, 4000, letters, 2100).limits
    assert limits.reasoner_prompt + limits.reasoner_response == 2100
    assert limits.planner_prompt + limits.planner_response == 4000
    with pytest.raises(ConfigError, match=r"leaves 0 of the reasoner's 100 tokens"):
        unnamed.dialogue(letters, 4000, letters, 100)
    with pytest.raises(ConfigError, match="max_turns=0"):
        Rules(max_turns=0)
    with pytest.raises(ConfigError, match="planner_decoding='any': choose constrained or free"):
        Rules(planner_decoding="any")
    with pytest.raises(ConfigError, match="context=0"):
        ModelConfig("smollm2", context=0)


def test_a_models_context_is_the_users_within_what_it_takes(home):
    path = str(home / "models/tiny-llama")
    own = ModelConfig(path).load(Reasoner).engine.context
    assert ModelConfig(path, context=100).load(Reasoner).engine.context == 100
    assert ModelConfig(path, context=1 << 20).load(Reasoner).engine.context == own < 1 << 20
