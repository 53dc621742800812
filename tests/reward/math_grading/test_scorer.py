from __future__ import annotations

import json
import mmap
import subprocess
import time
import warnings

import pytest
from support.paths import FIXTURES

from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.extract import Fallback, find_answer, last_boxed
from verl_rsim.reward.math_grading.scorer import MathScorer
from verl_rsim.reward.verdict import TruthError

AGREEMENT = json.loads((FIXTURES / "math_agreement.json").read_text())
REPORTS = json.loads((FIXTURES / "math_reports.json").read_text())


@pytest.fixture(scope="module")
def scorer():
    scorer = MathScorer(workers=2, timeout=3.0)
    yield scorer
    scorer.close()


def source(row: dict) -> str | AnswerType:
    return row.get("data_source") or AnswerType(row["type"])


def test_agreement_with_a_careful_human(scorer):
    """Each pair was judged by hand before the scorer saw it; benchmarks/speed/math_scorer.py prints a table by type."""
    wrong = [
        f"{row['type']}: {row['text']!r} for {row['truth']!r} should be {row['right']}: {row['why']}"
        for row in AGREEMENT
        if bool(scorer.score(row["text"], row["truth"], source(row)).accuracy) != row["right"]
    ]
    print(*wrong, sep="\n")
    assert len(AGREEMENT) >= 400
    assert len(wrong) <= 0.002 * len(AGREEMENT)


def test_agreement_on_pairs_from_public_reports(scorer):
    """Kinds of answers that users of other graders reported as graded wrongly; ``source`` names the thread."""
    wrong = []
    for row in REPORTS:
        verdict = scorer.score(row["text"], row["truth"], source(row))
        if bool(verdict.accuracy) != row["right"] and verdict.reason != "timeout":  # a busy machine decides nothing
            wrong.append(row)
    print(*wrong, sep="\n")
    assert len(REPORTS) >= 400
    assert len(wrong) <= 0.01 * len(REPORTS)
    assert sum(not row["right"] for row in wrong) <= 0.005 * len(REPORTS)


def test_an_explanation_says_what_was_found_where_and_how_it_was_compared(scorer):
    found = scorer.explain(r"so \boxed{1+x}", "x+1")
    assert (found.answer, found.place, found.method, found.vote) == ("1+x", "box", "by algebra", "1+x")
    found = scorer.explain("#### 1,000", "1000", "openai/gsm8k")
    assert (found.answer, found.place, found.method, found.vote) == ("1,000", "after ####", "as numbers", "1000")
    assert scorer.explain("no idea", "5").answer is None


def test_every_ground_truth_is_right_when_boxed(scorer):
    for row in AGREEMENT:
        assert scorer.score(f"\\boxed{{{row['truth']}}}", row["truth"], source(row)).reason == "right", row


def test_another_last_digit_is_never_right(scorer):
    whole = {
        row["truth"] for row in AGREEMENT if row["truth"].isdigit() and row["type"] in ("number", "integer", "math")
    }
    for truth in sorted(whole):
        for digit in set("0123456789") - {truth[-1]}:
            assert scorer.score(f"\\boxed{{{truth[:-1]}{digit}}}", truth, "openai/gsm8k").reason == "wrong"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and \boxed{3}", r"\frac{1}{2}, 3"),
        (r"so \boxed{\frac{1}{2}}, no: \boxed{3}", "3"),
        (r"it is not \boxed{3}", None),
        (r"12, so \boxed{1" + "2" * 10_001 + "}", None),
        ("<think>\\boxed{7}</think>The answer is 8.", "8"),
        ("<think>The answer is 8.", None),
        ("<answer>8</answer>", "8"),
        ("The answer is not 8.", None),
        ("It isn't 15.", None),
        ("Candidates: 12, 13, 14, 15", None),
        ("so x = \\frac{10}{9}", "\\frac{10}{9}"),
        ("we meet at 5:09", None),
        ("The answer is a decrease of 3.2%.", "a decrease of 3.2%"),
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7.", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{\frac{1}{2}}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{1}+1}", r"\boxed{1}+1"),
        (r"\boxed{1}\boxed{", "1"),
        (r"\boxed{unfinished", None),
        (r"\boxed{}", None),
        ("steps\n#### 1,234", "1,234"),
        ("#### 1\n#### 2", "2"),
        ("The answer is: $5.", "$5"),
        ("The answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("The answer is 5 because 2 + 3 = 5.", "5"),
        ("The answer is the sum, 5", "5"),
        ("The answer is 3.5.", "3.5"),
        ("2 + 3 = 5", "5"),
        ("it grew by 12.5%", "12.5%"),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_answer_a_text_states(text, answer):
    assert find_answer(text) == answer


def test_where_an_unmarked_answer_is_depends_on_its_type():
    text = "Of 3 options (A) is wrong.\nSo (C).\nYes"
    assert [find_answer(text, place) for place in Fallback] == ["3", "C", "Yes", "yes"]


def test_a_bare_box_after_an_open_one():
    assert last_boxed(r"\boxed{1}\boxed{") == "1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The answer is 5.", "right"),
        ("The answer is 6.", "wrong"),
        ("The answer is 5 (or 6).", "ambiguous"),
        ("The answer is 5. Or 6.", "ambiguous"),
        ("The answer isn't 5.", "no_answer"),
        (r"The answer is \boxed{5", "no_answer"),
        ("no idea", "no_answer"),
    ],
)
def test_a_verdict_says_why_there_is_no_certain_answer(scorer, text, reason):
    verdict = scorer.score(text, "5")
    assert (verdict.reason, verdict.answered) == (reason, reason in ("right", "wrong"))


PIECES = """
A |(A) |A) |1,|1, |1 |$|$1$ |\\(|\\[|\\boxed|\\boxed{|\\boxed{1}, |{|}|answer is |answer    |#### |**|=|1=|x=1 |- |1/|
1.|.|is |is 1 |or |not |true |no. |<think>|</think>|<answer>|\\text{|be |option | (|a|1|\\|because |A is |[|n't
"""


@pytest.mark.parametrize(
    "piece", [*PIECES.strip().replace("\n", "").split("|"), "\n", "A\n", "answer:\n", "\t", " ", "| "]
)
def test_no_text_of_100_000_characters_holds_up_the_extraction(piece):
    """The pieces are what the patterns look for; a pattern with quadratic time would take seconds on one of them."""
    slowest = 0.0
    for text in (piece * (100_000 // len(piece)), "answer is " + piece * (19_900 // len(piece)) + "7"):
        for place in Fallback:
            start = time.process_time()
            find_answer(text, place)
            slowest = max(slowest, time.process_time() - start)
    assert slowest < 0.2


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\boxed", "{", "}", "answer is ", "answer    ", "#### ", "1,", "(A) ", "$"]
)
@pytest.mark.parametrize("place", Fallback)
def test_extraction_is_linear_in_a_megabyte(piece, place):
    text = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    find_answer(text, place)
    find_answer("\\boxed{" + text, place)
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^{9}}}",
        "9" * 10_000,
        "{" * 140 + "}" * 140,
        "(" * 140 + "x" + ")" * 140,
        "\x00",
        "x\x00+2",
        "\ud800",
        r"\frac" * 50,
        r"(x+1)^{9999999}",
        r"\sum_{n=1}^{10^{9}} n",
        "10^{999999999}",
        "1e999999999",
        "\\text{" * 40,
        "\\begin{pmatrix}" * 15,
        r"\sqrt{" * 45 + "x" + "}" * 45,
        "x^" * 100 + "x",
        "1/" * 140 + "0",
        "\\pm" * 90,
        "," * 290,
    ],
)
def test_hostile_answers_cost_a_bounded_time_and_the_pool_lives_on(scorer, answer):
    start = time.perf_counter()
    for truth in ("x+1", "5", "(1,2)", r"\{1, x\}", "x < 2"):
        assert scorer.score(f"\\boxed{{{answer}}}", truth).accuracy == 0.0
    assert time.perf_counter() - start < 5 * scorer.timeout + 1
    assert scorer.score(r"\boxed{1+x}", "x+1").reason == "right"


def test_a_long_answer_is_refused_rather_than_cut(scorer):
    assert scorer.score("\\boxed{" + "5" * 301 + "}", "5" * 100).reason == "too_long"
    assert scorer.score("\\boxed{" + "5" * 301 + "}", "5" * 301).reason == "right"


def test_a_time_out_is_a_verdict():
    scorer = MathScorer(workers=1, timeout=2.0)
    assert scorer.score(r"\boxed{x+1+0}", "x+1").reason == "right"
    same = "3^{3^{18}}-1", "3^{3^{18}}+1"  # equal in all digits that fit: only the exact numbers differ
    assert scorer.score(rf"\boxed{{{same[0]}}}", same[1]).reason == "timeout"
    assert scorer.score(r"\boxed{x+1+1}", "x+2").reason == "right"
    scorer.close()


@pytest.mark.parametrize(
    ("truth", "kind", "problem"),
    [
        ("", AnswerType.MATH, "empty"),
        ("  ", AnswerType.STRING, "empty"),
        ("twelve or so", AnswerType.NUMBER, "not a number"),
        ("2.5", AnswerType.INTEGER, "not a whole number"),
        ("Z", AnswerType.OPTION, "not the letter"),
        ("42", "TIGER-Lab/MMLU-Pro", "not the letter"),
        ("perhaps", AnswerType.BOOL, "none of true, false"),
        ("[1, two and a half]", AnswerType.LIST, "not a list of numbers"),
        ("n/a", "finqa", "not a number"),
        ("x" * 6000, AnswerType.MATH, "more than"),
        ("7" * 4500, AnswerType.MATH, "digits"),
        ("7" * 4500, "openai/gsm8k", "digits"),
    ],
)
def test_a_truth_that_cannot_be_used_is_an_error(scorer, truth, kind, problem):
    with pytest.raises(TruthError, match=problem):
        scorer.check_truth(truth, kind)
    with pytest.raises(TruthError, match=problem):
        scorer.score("\\boxed{1}", truth, kind)


def test_a_truth_is_checked_without_a_worker(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    types = AnswerTypes({"my/*": AnswerType.OPTION})
    assert types.check_truth("B", "my/quiz") is AnswerType.OPTION
    assert types.check_truth("[1, 2]", "TheoremQA") is AnswerType.LIST
    with pytest.raises(TruthError, match="not the letter"):
        types.check_truth("42", "my/quiz")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("timeout", float("inf")), ("timeout", float("nan")), ("timeout", 0), ("tolerance", -1), ("workers", 0)],
)
def test_a_setting_out_of_its_range_is_an_error(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be"):
        MathScorer(**{setting: value})


@pytest.mark.parametrize("member", ["{}", "x^{{{}}}"])
def test_a_long_set_in_another_order_costs_a_bounded_time(scorer, member):
    members = [member.format(number) for number in range(600)]
    truth, answer = (r"\{" + ",".join(order) + r"\}" for order in (members, members[::-1]))
    start = time.perf_counter()
    assert scorer.score(f"\\boxed{{{answer}}}", truth).reason == "right"
    scorer.score(f"\\boxed{{{answer.replace('1', '10')}}}", truth)
    scorer.score(f"\\boxed{{{answer.replace('x', 'y')}}}", truth)
    assert time.perf_counter() - start < 2 * scorer.timeout + 2


def test_an_unknown_source_is_scored_as_mathematics_with_one_warning(scorer):
    with pytest.warns(UserWarning, match="'my/questions' has no answer type"):
        assert scorer.answer_type("my/questions") is AnswerType.MATH
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scorer.answer_type("my/questions") is AnswerType.MATH
        assert scorer.answer_type(None) is AnswerType.MATH
        assert scorer.answer_type("aime2025") is AnswerType.MATH


def test_own_sources_go_before_the_table():
    scorer = MathScorer(sources={"my/*": AnswerType.OPTION, "openai/gsm8k": AnswerType.FLOAT})
    kinds = [scorer.answer_type(name) for name in ("my/quiz", "openai/gsm8k", "aqua_rat")]
    scorer.close()
    assert kinds == [AnswerType.OPTION, AnswerType.FLOAT, AnswerType.OPTION]


def test_the_tolerance_is_a_setting():
    scorer = MathScorer(tolerance=0.1)
    assert scorer.score(r"\boxed{105}", "100", AnswerType.FINANCIAL).reason == "right"
    assert scorer.score(r"\boxed{111}", "100", AnswerType.FINANCIAL).reason == "wrong"
    scorer.close()


def test_the_first_pair_does_not_pay_for_the_start():
    scorer = MathScorer(workers=1, timeout=1.0)
    assert scorer.score(r"\boxed{1+x}", "x+1").reason == "right"
    scorer.close()


def test_scores_from_a_process_far_above_the_workers_memory_limit():
    """As verl's reward workers are: a forked worker would start above its own limit and crash on every expression."""
    ballast = mmap.mmap(-1, 6 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    scorer = MathScorer(workers=1)
    assert scorer.score(r"\boxed{1+x}", "x+1").reason == "right"
    scorer.close()
    ballast.close()
