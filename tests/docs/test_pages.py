"""The code of docs/extending.md works, and links between the pages lead somewhere."""

from __future__ import annotations

import importlib
import json
import re

import pytest
import torch
import yaml
from support.pages import PAGES
from support.paths import ROOT

from verl_rsim.config.schema import RsimConfig, parse_config
from verl_rsim.core.episode import Stop
from verl_rsim.core.schedule import build_schedule
from verl_rsim.data.rows import read_rows
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.planner_reward import EpisodeOutcome, PlannerScorer

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs/extending.md").read_text(), re.MULTILINE | re.DOTALL)

PLAIN = re.findall(r"^```()\n(verl-rsim.*?)^```", (ROOT / "docs/extending.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """The page's Python files, importable."""
    for language, text in BLOCKS:
        if language == "python":
            (tmp_path / re.match(r"# (\w+\.py)\n", text)[1]).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module


def setting(key: str) -> RsimConfig:
    """The page's ``rsim`` block that has this key."""
    blocks = [yaml.safe_load(text)["rsim"] for language, text in BLOCKS if language == "yaml"]
    return parse_config(next(block for block in blocks if key in block))


def test_terms_of_the_planners_reward(modules):
    score = PlannerScorer(setting("reward").reward).score(
        EpisodeOutcome(1.0, ("sub_planning", "termination"), Stop.TERMINATION)
    )
    assert (score.parts["brevity"], score.parts["plans_first"]) == (0.1, 0.05)


def test_a_reward_of_the_answer(modules):
    module = modules("my_answers")
    try:
        assert module.compute_score("mine", "\\boxed{4}", "4")["acc"] == 1
        assert module.compute_score("mine", "\\boxed{5}", "4")["acc"] == 0
    finally:
        module.scorer.close()


def test_a_schedule():
    config = setting("schedule")
    schedule = build_schedule(config.schedule, config.weight, 1000)
    assert [schedule.index(step) for step in (1, 100, 101, 800, 801, 1000)] == [0, 0, 1, 1, 2, 2]
    assert schedule.at(500).reasoner_weight == 0.7


def test_the_dataset_command(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from verl_rsim.cli import app

    (program, *arguments) = next(text for _, text in PLAIN if "prepare-data" in text).split()
    assert program == "verl-rsim"
    rows = [{"problem": f"{n} + 1?", "solution": f"We add.\n\nIt is $\\boxed{{{n + 1}}}$."} for n in range(5)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    truths = {row["reward_model"]["ground_truth"] for row in read_rows(tmp_path / "data/mine/train.parquet")}
    assert truths < {"1", "2", "3", "4", "5"}


def test_answer_types():
    scoring = setting("scoring").scoring
    types = AnswerTypes({source: AnswerType(kind) for source, kind in scoring.answer_types.items()})
    assert types.of("mine") is AnswerType.FINANCIAL


def test_an_advantage_estimator(modules):
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    modules("my_advantages")
    rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1, 1], [0, 1]])
    advantages, _ = get_adv_estimator_fn("centred")(token_level_rewards=rewards, response_mask=mask, index=[0, 0])
    assert advantages.tolist() == [[0.5, 0.5], [0.0, -0.5]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"
