"""Logged episodes in the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from support.episode_records import episode, turn
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.monitoring.episode_log import EpisodeLog
from verl_rsim.monitoring.episode_viewer import EpisodeFilter, replay
from verl_rsim.utils.errors import ConfigError

RECORDS = [
    episode("validation", "termination", step=0, acc=1.0, planner_reward=1.1, planner_parts={"accuracy": 1.0}),
    episode("decomposition", step=10, question="How many pens?", turns=(turn("decomposition", "Count [them].\n\n"),)),
    episode(step=10, stop="prompt_too_long", reason="no_answer"),
    episode(
        kind="evaluation", condition="alone", step=5, turns=(turn("", "Two.", log_prob=None),), planner_reward=None
    ),
]


def shown(selection: EpisodeFilter, terminal: bool = False) -> str:
    out = io.StringIO()
    replay(RECORDS, selection, Console(file=out, force_terminal=terminal, width=60))
    return out.getvalue()


def test_an_episode_reads_as_plain_text_where_there_is_no_terminal():
    text = shown(EpisodeFilter(step=0))
    assert "validation at step 0, question" in text
    assert "planner's reward 1.10 (accuracy 1.00), reasoner's 0.00, ended by termination" in text
    assert "1. validation  p = 0.11, 5 tokens of mean log-prob -0.50, delimiter" in text
    assert "\x1b" not in text


def test_an_evaluation_names_its_condition_and_no_rewards():
    text = shown(EpisodeFilter(condition="alone"))
    assert text.startswith("evaluation, alone, question")
    assert "reward" not in text
    assert "1. without a strategy  5 tokens of mean" in text


def test_a_terminal_gets_colours_and_no_control_characters_of_the_models():
    written = turn("validation", "\x1b]0;owned\x07 [red]text[/red]", end="\x1b]0;owned\x07")
    RECORDS.append(episode(step=99, turns=(written,), question_id="\x1b]0;owned\x07"))
    text = shown(EpisodeFilter(step=99), terminal=True)
    RECORDS.pop()
    assert "\x1b[" in text
    assert "\x1b]" not in text
    assert "[red]text[/red]" in text


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (EpisodeFilter(), 4),
        (EpisodeFilter(step=10), 2),
        (EpisodeFilter(wrong=True), 3),
        (EpisodeFilter(condition="alone"), 1),
        (EpisodeFilter(strategy="decomposition"), 1),
        (EpisodeFilter(stop="prompt_too_long"), 1),
        (EpisodeFilter(search="PENS"), 1),
        (EpisodeFilter(search="[them]"), 1),
        (EpisodeFilter(step=0, wrong=True), 0),
    ],
)
def test_filters(wanted, count):
    assert replay(RECORDS, wanted, Console(file=io.StringIO())) == count


def test_a_filter_for_what_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"--strategy='verify': choose one of self_reflection, "):
        EpisodeFilter(strategy="verify")
    with pytest.raises(ConfigError, match="--stop"):
        EpisodeFilter(stop="boredom")


def test_the_command(tmp_path):
    EpisodeLog(tmp_path / "episodes").append(RECORDS)
    result = CliRunner().invoke(app, ["replay", str(tmp_path), "--search", "pens"])
    assert "How many pens?" in result.output
    assert result.output.count("ground truth") == 1
