"""Measures forgetting and transfer from a planner's answers before a chain and after each of its stages.

``R[i, j]`` is the accuracy on dataset ``j`` in state ``i``: state 0 is before the first stage, state ``i`` after it.
Average accuracy, backward and forward transfer are those of Lopez-Paz & Ranzato (2017, "Gradient Episodic Memory"),
forgetting is that of Chaudhry et al. (2018, "Riemannian Walk"). Forward transfer is relative to the planner before the
chain; in the paper it is relative to random weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from verl_rsim.evaluation.statistics import RESAMPLES, Difference, Estimate, holm, paired

Scores = Mapping[str, Sequence[float]]
"""The scores of each question's samples, by question id."""
_MAX_COUNTS = 1 << 22
"""Elements of the bootstrap counts that are held at once: 32 MiB of int64."""


@dataclass(frozen=True, slots=True)
class LearnedDataset:
    """Describes a column of R.

    Attributes:
        name: name of the dataset.
        learned: index of the first state that was trained on it: 0 if before the chain; None if it is never trained.
    """

    name: str
    learned: int | None


@dataclass(frozen=True, slots=True)
class Measure:
    """Holds a number about the whole chain; NaN while there is no task to average.

    Attributes:
        name: name of the measure.
        estimate: its value with a 95 % interval.
        tasks: tasks that it averages.
    """

    name: str
    estimate: Estimate
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """Compares the newest state with an earlier one, on the same questions of one dataset.

    Attributes:
        dataset: name of the dataset.
        since: name of the earlier state.
        difference: the newest state minus the earlier one.
        p_holm: p-value with Holm's correction over all datasets of the same comparison.
    """

    dataset: str
    since: str
    difference: Difference
    p_holm: float


@dataclass(frozen=True, slots=True)
class ForgettingReport:
    """Holds the report of a chain.

    Attributes:
        states: names of the planner's states, the newest last.
        datasets: all datasets of the evaluation.
        accuracy: accuracy as ``[state][dataset]``.
        measures: average accuracy, transfer and forgetting.
        since_before: the newest state against the one before the chain, one item per dataset.
        since_learned: the newest state against the one in which a task had just been learned, one item per task except
            the newest.
    """

    states: tuple[str, ...]
    datasets: tuple[LearnedDataset, ...]
    accuracy: tuple[tuple[Estimate, ...], ...]
    measures: tuple[Measure, ...]
    since_before: tuple[Change, ...]
    since_learned: tuple[Change, ...]


def compute_measures(accuracy: np.ndarray, learned: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Computes average accuracy, backward transfer, forward transfer and forgetting.

    Args:
        accuracy: R, ``(..., states, datasets)``.
        learned: for each dataset :attr:`LearnedDataset.learned`; tasks after the newest state are left out.

    Returns:
        Each measure, ``(...)``; NaN where it has no task to average.
    """
    newest = accuracy.shape[-2] - 1
    final, averaged = accuracy[..., newest, :], averaged_datasets(learned, newest)
    # The maximum of forgetting begins with the first state that has learned a task (docs/continual.md).
    first = 0 if 0 in learned else 1
    values: dict[str, list[np.ndarray]] = {name: [] for name in averaged}
    for j, state in enumerate(learned):
        if state is None:
            continue
        if j in averaged["average accuracy"]:
            values["average accuracy"].append(final[..., j])
        if j in averaged["backward transfer"]:
            values["backward transfer"].append(final[..., j] - accuracy[..., state, j])
        if j in averaged["forward transfer"]:
            values["forward transfer"].append(accuracy[..., state - 1, j] - accuracy[..., 0, j])
        if j in averaged["forgetting"]:
            values["forgetting"].append(accuracy[..., first:newest, j].max(-1) - final[..., j])
    undefined = np.full(accuracy.shape[:-2], math.nan)
    return {name: np.mean(terms, axis=0) if terms else undefined for name, terms in values.items()}


def averaged_datasets(learned: Sequence[int | None], newest: int) -> dict[str, list[int]]:
    """Returns the indices of the datasets that each measure averages when ``newest`` is the newest state."""
    tasks = [(j, state) for j, state in enumerate(learned) if state is not None and state <= newest]
    earlier = [j for j, state in tasks if state < newest]
    return {
        "average accuracy": [j for j, _ in tasks],
        "backward transfer": earlier,
        "forward transfer": [j for j, state in tasks if state > 1],
        "forgetting": earlier,
    }


def bootstrap_accuracy(scores: Sequence[np.ndarray], seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Returns R of bootstrap samples of each dataset's questions.

    A sample has the same questions in every state, so that differences between states keep their pairing.

    Args:
        scores: for each dataset ``(states, questions)``: the mean over a question's samples.
        seed: seed of the samples.
        resamples: number of samples.

    Returns:
        ``(resamples, states, datasets)``.
    """
    generator = np.random.default_rng(seed)
    columns = []
    for values in scores:
        questions = values.shape[1]
        rows = max(1, _MAX_COUNTS // questions)
        parts = []
        for done in range(0, resamples, rows):
            # Drawing with replacement is a multinomial count per question; the product with the scores is a sum.
            size = min(rows, resamples - done)
            counts = generator.multinomial(questions, np.full(questions, 1 / questions), size=size)
            parts.append(counts @ values.T / questions)
        columns.append(np.concatenate(parts))
    return np.stack(columns, axis=-1)


def analyse(
    states: Sequence[str], datasets: Sequence[LearnedDataset], scores: Mapping[tuple[str, str], Scores], seed: int
) -> ForgettingReport:
    """Computes the report of the states that have been evaluated so far.

    Args:
        states: names of the states, the newest last.
        datasets: all datasets of the evaluation.
        scores: scores by (state, dataset); every state must have every dataset's questions.
        seed: seed of the intervals.
    """
    learned, newest = [dataset.learned for dataset in datasets], len(states) - 1
    values = [_score_matrix(states, dataset.name, scores) for dataset in datasets]
    accuracy = np.stack([matrix.mean(1) for matrix in values], axis=-1)
    samples = bootstrap_accuracy(values, seed)
    sampled_measures, averaged = compute_measures(samples, learned), averaged_datasets(learned, newest)
    measures = []
    for name, value in compute_measures(accuracy, learned).items():
        tasks = tuple(datasets[j].name for j in averaged[name])
        measures.append(Measure(name, _estimate(float(value), sampled_measures[name]), tasks))
    since_before = {dataset.name: states[0] for dataset in datasets} if newest else {}
    since_learned = {}
    for j in averaged["backward transfer"]:
        since_learned[datasets[j].name] = states[learned[j]]  # type: ignore[index]
    return ForgettingReport(
        states=tuple(states),
        datasets=tuple(datasets),
        accuracy=_accuracy_cells(accuracy, values, samples),
        measures=tuple(measures),
        since_before=_changes(states[-1], since_before, scores, seed),
        since_learned=_changes(states[-1], since_learned, scores, seed),
    )


def _score_matrix(states: Sequence[str], dataset: str, scores: Mapping[tuple[str, str], Scores]) -> np.ndarray:
    """Returns a dataset's scores, ``(states, questions)``."""
    rows = []
    for state in states:
        by_question = scores[state, dataset]
        rows.append([np.mean(by_question[question]) for question in scores[states[0], dataset]])
    return np.array(rows)


def _accuracy_cells(
    accuracy: np.ndarray, values: Sequence[np.ndarray], samples: np.ndarray
) -> tuple[tuple[Estimate, ...], ...]:
    """Returns the accuracy of each state and dataset; one question alone has no interval."""
    rows = []
    for i in range(accuracy.shape[0]):
        row = []
        for j, matrix in enumerate(values):
            if matrix.shape[1] > 1:
                row.append(_estimate(float(accuracy[i, j]), samples[:, i, j]))
            else:
                row.append(Estimate(float(accuracy[i, j]), math.nan, math.nan))
        rows.append(tuple(row))
    return tuple(rows)


def _estimate(value: float, samples: np.ndarray) -> Estimate:
    low, high = np.quantile(samples, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _changes(
    newest: str, since: Mapping[str, str], scores: Mapping[tuple[str, str], Scores], seed: int
) -> tuple[Change, ...]:
    differences = {
        dataset: paired(scores[newest, dataset], scores[state, dataset], seed) for dataset, state in since.items()
    }
    corrected = holm([difference.p for difference in differences.values()])
    changes = []
    for (dataset, difference), p_holm in zip(differences.items(), corrected, strict=True):
        changes.append(Change(dataset, since[dataset], difference, p_holm))
    return tuple(changes)
