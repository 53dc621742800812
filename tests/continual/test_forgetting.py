"""The numbers of a forgetting report against ones computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from verl_rsim.continual.forgetting import LearnedDataset, analyse, bootstrap_accuracy, compute_measures
from verl_rsim.continual.report import forgetting_tables
from verl_rsim.evaluation.statistics import bootstrap, paired

R = np.array(
    [
        [0.20, 0.10, 0.30],  # before
        [0.60, 0.20, 0.35],  # after task 1
        [0.50, 0.70, 0.25],  # after task 2
        [0.55, 0.40, 0.80],  # after task 3
    ]
)


def test_three_stages_by_hand():
    found = compute_measures(R, (1, 2, 3))
    assert found["average accuracy"] == pytest.approx((0.55 + 0.40 + 0.80) / 3)
    assert found["backward transfer"] == pytest.approx(((0.55 - 0.60) + (0.40 - 0.70)) / 2)
    assert found["forward transfer"] == pytest.approx(((0.20 - 0.10) + (0.25 - 0.30)) / 2)
    assert found["forgetting"] == pytest.approx(((0.60 - 0.55) + (0.70 - 0.40)) / 2)


def test_forgetting_is_from_the_best_state_not_from_the_one_after_learning():
    recovered = R.copy()
    recovered[2, 0] = 0.9  # task 2 helped task 1, task 3 undid it
    found = compute_measures(recovered, (1, 2, 3))
    assert found["forgetting"] == pytest.approx(((0.9 - 0.55) + (0.70 - 0.40)) / 2)
    assert found["backward transfer"] == pytest.approx(((0.55 - 0.60) + (0.40 - 0.70)) / 2)


def test_a_task_learned_before_the_chain_counts_from_its_first_state():
    found = compute_measures(R, (0, 1, None))
    assert found["average accuracy"] == pytest.approx((0.55 + 0.40) / 2)
    assert found["backward transfer"] == pytest.approx(((0.55 - 0.20) + (0.40 - 0.20)) / 2)
    assert found["forgetting"] == pytest.approx(((0.60 - 0.55) + (0.70 - 0.40)) / 2)
    assert np.isnan(found["forward transfer"])


def test_what_is_not_learned_yet_does_not_count():
    found = compute_measures(R[:2], (1, 2, 3))
    assert found["average accuracy"] == pytest.approx(0.60)
    assert all(np.isnan(found[name]) for name in ("backward transfer", "forward transfer", "forgetting"))
    assert all(np.isnan(value) for value in compute_measures(R[:1], (1, 2, 3)).values())


@given(arrays(np.float64, (4, 3), elements=st.floats(0, 1)))
def test_nothing_is_forgotten_less_than_backward_transfer_says(accuracy):
    found = compute_measures(accuracy, (1, 2, 3))
    assert found["forgetting"] >= -found["backward transfer"] - 1e-12
    for value in found.values():
        assert -1 <= value <= 1


def test_bootstrap_samples_have_the_same_questions_in_every_state():
    values = np.random.default_rng(0).integers(0, 2, (1, 50)).astype(float)
    samples = bootstrap_accuracy([np.concatenate([values, values, 1 - values])], seed=0, resamples=2000)
    assert samples.shape == (2000, 3, 1)
    assert (samples[:, 0] == samples[:, 1]).all()
    assert samples[:, 0] + samples[:, 2] == pytest.approx(np.ones((2000, 1)))
    expected = bootstrap(list(values[0]), seed=1)
    low, high = np.quantile(samples[:, 0, 0], (0.025, 0.975))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.021)


def scored(*right: int, questions: int = 4) -> dict[str, list[float]]:
    return {str(number): [float(number in right)] for number in range(questions)}


STATES = ("before", "math", "code")
DATASETS = (LearnedDataset("math", 1), LearnedDataset("code", 2), LearnedDataset("other", None))
SCORES = {
    ("before", "math"): scored(0),
    ("math", "math"): scored(0, 1, 2),
    ("code", "math"): scored(0, 3),
    ("before", "code"): scored(),
    ("math", "code"): scored(1),
    ("code", "code"): scored(0, 1, 2, 3),
    ("before", "other"): scored(0),
    ("math", "other"): scored(0),
    ("code", "other"): scored(0),
}


def test_a_report_from_answers():
    report = analyse(STATES, DATASETS, SCORES, seed=0)
    assert [[cell.mean for cell in row] for row in report.accuracy] == [
        [0.25, 0.0, 0.25],
        [0.75, 0.25, 0.25],
        [0.5, 1.0, 0.25],
    ]
    values = {found.name: found for found in report.measures}
    assert values["average accuracy"].estimate.mean == 0.75
    assert values["backward transfer"].estimate.mean == -0.25
    assert values["backward transfer"].tasks == ("math",)
    assert values["forward transfer"].estimate.mean == 0.25
    assert values["forward transfer"].tasks == ("code",)
    assert values["forgetting"].estimate.mean == 0.25
    assert all(value.estimate.low <= value.estimate.mean <= value.estimate.high for value in report.measures)
    assert [(c.dataset, c.since) for c in report.since_before] == [(d.name, "before") for d in DATASETS]
    assert [(c.dataset, c.since) for c in report.since_learned] == [("math", "math")]
    change = report.since_learned[0].difference
    assert change == paired(SCORES["code", "math"], SCORES["math", "math"], 0)
    assert (change.estimate.mean, change.wins, change.losses, change.p) == (-0.25, 1, 2, 1.0)
    raw = [change.difference.p for change in report.since_before]
    assert raw == [1.0, 0.125, 1.0]
    assert [change.p_holm for change in report.since_before] == [1.0, 0.375, 1.0]


def test_the_state_before_alone_has_a_matrix_and_no_comparison():
    report = analyse(STATES[:1], DATASETS, SCORES, seed=0)
    assert not report.since_before
    assert not report.since_learned
    assert len(forgetting_tables(report)) == 1
    assert all(math.isnan(found.estimate.mean) for found in report.measures)


def test_a_measure_without_a_task_is_left_out_of_the_tables():
    tables = forgetting_tables(analyse(STATES[:2], DATASETS, SCORES, seed=0))
    assert [row[0] for row in tables[1].rows] == ["average accuracy"]
    tables = forgetting_tables(analyse(STATES, DATASETS, SCORES, seed=0))
    assert [row[0] for row in tables[1].rows] == [
        "average accuracy",
        "backward transfer",
        "forward transfer",
        "forgetting",
    ]
    assert "-25.0" in tables[1].markdown()
    assert [row[0] for row in tables[3].rows] == ["math"]
