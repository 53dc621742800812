from __future__ import annotations

import pytest
from verl_rsim.reward.math_score import MathScorer, extract_answer, last_boxed


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
