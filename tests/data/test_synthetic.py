"""The made-up sets: one for each type of answer, scored as that type."""

from __future__ import annotations

import pytest

from verl_rsim.data.prepare import prepare
from verl_rsim.data.rows import read_rows
from verl_rsim.data.synthetic import SYNTHETIC, generate_synthetic
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.scorer import MathScorer

NAMES = [name for name in SYNTHETIC if name != "finance_synthetic"]


@pytest.fixture(scope="module")
def scorer():
    scorer = MathScorer()
    yield scorer
    scorer.close()


def test_every_type_of_answer_has_a_set():
    assert {AnswerTypes().of(name) for name in SYNTHETIC} == set(AnswerType)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_scored_by_their_type(name, scorer):
    questions = generate_synthetic(name, 20, seed=3)
    assert questions == generate_synthetic(name, 20, seed=3)
    for question in questions:
        assert scorer.score(f"\\boxed{{{question.answer}}}", question.answer, name).accuracy == 1
    for other in questions:
        if other.answer != questions[0].answer and "auto" not in name:
            assert scorer.score(f"\\boxed{{{other.answer}}}", questions[0].answer, name).accuracy == 0


def test_their_answers_are_right():
    for question in generate_synthetic("option_synthetic", 50, 0):
        asked, *options = question.text.splitlines()
        left, right = asked.removeprefix("Which is ").rstrip("?").split(" + ")
        assert f"{question.answer}) {int(left) + int(right)}" in options
    for question in generate_synthetic("bool_synthetic", 50, 0):
        words = question.text.rstrip(".").split()
        assert question.answer == str(int(words[3]) % int(words[-1]) == 0)
    for question in generate_synthetic("list_synthetic", 50, 0):
        numbers = question.text.removeprefix("Sort ").partition(" in")[0].split(", ")
        assert question.answer == str(sorted(map(int, numbers)))


def test_prompts_ask_for_the_type(tmp_path):
    prepare(tmp_path / "d", "auto_synthetic", train=60, test=10)
    ends = {row["prompt"][0]["content"].splitlines()[-1] for row in read_rows(tmp_path / "d/train.parquet")}
    assert len(ends) == 4, "options, True or False, lists, and all others"
