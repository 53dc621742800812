"""The estimates against independent computations, by hand or by scipy."""

from __future__ import annotations

import importlib
import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_rsim.evaluation.statistics import bootstrap, holm, majority, mcnemar, paired, sign_flip


@pytest.fixture(scope="session")
def scipy_stats():
    """An independent computation, where it is installed."""
    return importlib.import_module("scipy.stats")


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert mcnemar(4, 4) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(scipy_stats, wins, losses):
    expected = scipy_stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(expected)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=8))
@settings(max_examples=60)
def test_few_differences_get_every_assignment_of_signs(differences):
    observed = abs(sum(differences))
    signs = list(itertools.product((-1, 1), repeat=len(differences)))
    hits = sum(abs(sum(s * d for s, d in zip(row, differences, strict=True))) >= observed - 1e-12 for row in signs)
    p, exact = sign_flip(differences, seed=0)
    assert exact
    assert p == pytest.approx(hits / len(signs))


def test_many_differences_get_a_sample_of_them_near_the_exact_p(scipy_stats):
    source = random.Random(3)
    differences = [source.choice([-1.0, 0.5, 1.0]) * source.random() for _ in range(40)]

    def statistic(values, axis=-1):
        return np.mean(values, axis=axis)

    exact = scipy_stats.permutation_test(
        (np.array(differences),), statistic, permutation_type="samples", n_resamples=20_000, random_state=1
    )
    p, is_exact = sign_flip(differences, seed=0)
    assert not is_exact
    assert p == pytest.approx(exact.pvalue, abs=0.015)
    assert sign_flip(differences, seed=0) == (p, False)


def test_the_bootstrap_is_scipys_and_repeats_itself(scipy_stats):
    values = [1.0] * 30 + [0.0] * 20
    estimate = bootstrap(values, seed=1)
    expected = scipy_stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=2)
    assert estimate.mean == 0.6
    assert estimate.low == pytest.approx(expected.confidence_interval.low, abs=0.021)
    assert estimate.high == pytest.approx(expected.confidence_interval.high, abs=0.021)
    assert bootstrap(values, seed=1) == estimate


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    source = np.random.default_rng(5)
    estimates = [bootstrap(source.random(60) < 0.4, seed=i, resamples=500) for i in range(300)]
    assert 0.90 <= np.mean([e.low <= 0.4 <= e.high for e in estimates]) <= 0.98


def test_degenerate_samples_have_no_interval_and_no_crash():
    assert math.isnan(bootstrap([], 0).mean)
    one = bootstrap([1.0], 0)
    assert one.mean == 1.0
    assert math.isnan(one.low)
    same = bootstrap([1.0] * 9, 0)
    assert (same.low, same.high) == (1.0, 1.0)
    assert sign_flip([0.0, 0.0], 0) == (1.0, True)


def test_one_sample_a_question_is_mcnemar_more_are_sign_flips_and_only_common_questions_count():
    first = {"a": [1.0], "b": [1.0], "c": [0.0], "only here": [1.0]}
    second = {"a": [0.0], "b": [0.0], "c": [0.0]}
    one = paired(first, second, seed=0)
    assert (one.questions, one.wins, one.losses, one.test) == (3, 2, 0, "mcnemar")
    assert one.p == 0.5
    assert one.estimate.mean == pytest.approx(2 / 3)
    more = paired({**first, "a": [1.0, 0.0]}, second, seed=0)
    assert more.test == "sign_flip"
    assert more.estimate.mean == pytest.approx(0.5)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("votes", "correct", "expected"),
    [
        (["4", "4", "5"], [1, 1, 0], 1.0),
        (["4", "5", "5"], [1, 0, 0], 0.0),
        (["4", "5"], [1, 0], 0.5),
        ([None, None, "4"], [0, 0, 1], 1.0),
        ([None, None], [0, 0], 0.0),
    ],
)
def test_majority(votes, correct, expected):
    assert majority(votes, [float(value) for value in correct]) == expected
