"""The synthetic finance questions: their answers are right, and are scored with a tolerance."""

from __future__ import annotations

import random
import re

import pyarrow.parquet as pq
import pytest

from verl_rsim.data.finance import draw_question
from verl_rsim.data.prepare import prepare
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType


def solve(text: str) -> float:
    """The answer, from the text alone."""
    lines = re.findall(r"^(\w+) \| (\d+) \| (\d+)$", text, re.MULTILINE)
    figures = {name: (int(first), int(second)) for name, first, second in lines}
    asked = text.splitlines()[-1]
    year = 1 if "second year" in asked else 0
    if found := re.search(r"did (\w+) change", asked):
        first, second = figures[found[1]]
        return (second - first) / first * 100
    if "margin" in asked:
        return (figures["revenue"][year] - figures["costs"][year]) / figures["revenue"][year] * 100
    if "average" in asked:
        return sum(figures["revenue"]) / 2
    if "was interest" in asked:
        return figures["interest"][year] / figures["costs"][year] * 100
    rate, years = (int(found) for found in re.search(r"at (\d+)% .* after (\d+) years", asked).groups())
    return figures["revenue"][1] * rate / 100 * years


@pytest.mark.parametrize("seed", range(200))
def test_the_answer_is_what_the_figures_say(seed):
    text, answer = draw_question(random.Random(seed))
    assert float(answer.rstrip("%")) == pytest.approx(solve(text), abs=0.006)
    assert answer.endswith("%") == ("percent" in text.splitlines()[-1])


def test_prepared_questions_are_scored_as_financial(tmp_path):
    assert prepare(tmp_path / "d", "finance_synthetic", train=50, test=10)
    assert not prepare(tmp_path / "d", "finance_synthetic", train=50, test=10)
    rows = [row for split in ("train", "test") for row in pq.read_table(tmp_path / f"d/{split}.parquet").to_pylist()]
    assert len({row["prompt"][0]["content"] for row in rows}) == 60
    types = AnswerTypes()
    for row in rows:
        assert types.check_truth(row["reward_model"]["ground_truth"], row["data_source"]) is AnswerType.FINANCIAL
