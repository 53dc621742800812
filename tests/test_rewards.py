from __future__ import annotations

import pytest
from verl_rsim.reward.math_score import MathScorer, extract_answer, last_boxed
from verl_rsim.reward.planner_score import repeat_share, score_planner

from verl_rsim.settings import RewardConfig


@pytest.fixture(scope="module")
def scorer():
    scorer = MathScorer(workers=2, timeout=3.0)
    yield scorer
    scorer.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and \boxed{3}", "3"),
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\boxed{unfinished", None),
        ("steps\n#### 1,234", "1,234"),
        ("The answer is: $5.", "5"),
        ("2 + 3 = 5", "5"),
        ("no idea", None),
    ],
)
def test_the_answer_a_text_states(text, answer):
    assert extract_answer(text) == answer


def test_boxes():
    assert last_boxed(r"\boxed{1}\boxed{") == "1"


@pytest.mark.parametrize(
    ("text", "truth", "right"),
    [
        (r"\boxed{5}", "5", True),
        (r"\boxed{5.0}", "5", True),
        (r"\boxed{-5}", "5", False),
        (r"\boxed{1,127}", "1127", True),
        (r"\boxed{23\times49}", "1127", False),
        (r"\boxed{6=5}", "5", False),
        (r"\boxed{500\%}", "5", False),
        (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", True),
        (r"\boxed{0.5}", r"\frac{1}{2}", True),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", True),
        (r"\boxed{x^2}", "(x+1)^2", False),
    ],
)
def test_right_and_wrong_answers(scorer, text, truth, right):
    assert scorer.score(text, truth).accuracy == float(right)


@pytest.mark.parametrize("text", [r"\boxed{9^{9^{9^{9}}}}", r"\boxed{" + "{" * 200 + "}" * 200 + "}", "\\boxed{\x00}"])
def test_hostile_answers_cost_a_bounded_time_and_the_pool_lives_on(scorer, text):
    assert scorer.score(text, "x+1").accuracy == 0.0
    assert scorer.score(r"\boxed{1+x}", "x+1").accuracy == 1.0


def test_a_parser_runs_in_a_process_far_above_the_workers_memory_limit():
    """As verl's reward workers are: a forked worker would start above its own limit and crash on every expression."""
    import mmap

    ballast = mmap.mmap(-1, 6 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    scorer = MathScorer(workers=1)
    assert scorer.score(r"\boxed{1+x}", "x+1").reason == "right"
    scorer.close()
    ballast.close()


def test_repeats_count_beyond_the_allowance_and_continuation_is_exempt():
    assert repeat_share([], 0) == 0
    assert repeat_share(["validation"] * 4, 1) == 2 / 4  # the third and fourth: used more than once before
    assert repeat_share(["validation"] * 4, 0) == 3 / 4
    assert repeat_share(["continuation"] * 9, 0) == 0


def test_the_planners_reward_is_the_sum_of_its_parts():
    config = RewardConfig(accuracy=1.0, termination=0.2, diversity=0.5, unparsed=0.3, max_repeats=0)
    score = score_planner(1.0, ["validation", "validation", "termination", "continuation"], True, 1, config)
    assert (score.accuracy, score.termination, score.diversity, score.unparsed) == (1.0, 0.2, -0.5 / 4, -0.3 / 4)
    assert score.total == pytest.approx(1.0 + 0.2 - 0.125 - 0.075)
    assert score_planner(0.0, [], False, 0, config).total == 0
