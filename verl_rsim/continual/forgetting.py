"""What a planner forgot and what carried over, from its answers before a chain and after each of its stages.

``R[i, j]`` is the accuracy on dataset ``j`` in state ``i``: state 0 is before the first stage, state ``i`` after it.
Average accuracy, backward and forward transfer are those of Lopez-Paz & Ranzato (2017, "Gradient Episodic Memory"),
forgetting is that of Chaudhry et al. (2018, "Riemannian Walk"). The yardstick of forward transfer is the planner before
the chain, where the paper has one with random weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from verl_rsim.evaluation.statistics import RESAMPLES, Difference, Estimate, holm, paired

Scores = Mapping[str, Sequence[float]]
"""The scores of a question's samples, by question."""
_BATCH = 1 << 22


@dataclass(frozen=True, slots=True)
class LearnedDataset:
    """A column of R.

    Attributes:
        learned: the state after which the planner knows it: 0 if it did before the chain; None if it is never trained.
    """

    name: str
    learned: int | None


@dataclass(frozen=True, slots=True)
class Measure:
    """A number about the whole chain; nan where no task is of its kind yet.

    Attributes:
        tasks: that it is an average of.
    """

    name: str
    estimate: Estimate
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """The newest state minus an earlier one, on the same questions of one dataset.

    Attributes:
        since: the earlier state.
        p_holm: corrected for all datasets that are compared in this way.
    """

    dataset: str
    since: str
    difference: Difference
    p_holm: float


@dataclass(frozen=True, slots=True)
class Forgetting:
    """A chain's report.

    Attributes:
        states: names, the newest one last.
        accuracy: ``[state][dataset]``.
        since_before: the newest state against the one before the chain, by dataset.
        since_learned: against the state in which a task had just been learned, by task; the newest task has none.
    """

    states: tuple[str, ...]
    datasets: tuple[LearnedDataset, ...]
    accuracy: tuple[tuple[Estimate, ...], ...]
    measures: tuple[Measure, ...]
    since_before: tuple[Change, ...]
    since_learned: tuple[Change, ...]


def measure(accuracy: np.ndarray, learned: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Average accuracy, backward transfer, forward transfer and forgetting.

    Args:
        accuracy: R, ``(..., states, datasets)``.
        learned: of each dataset, see :class:`LearnedDataset`; those after the newest state do not count yet.

    Returns:
        Each measure, ``(...)``; nan where it has no task to average.
    """
    newest = accuracy.shape[-2] - 1
    final, known = accuracy[..., newest, :], among(learned, newest)
    first = 0 if 0 in learned else 1  # the first state in which a task has been learned
    formulas: dict[str, Callable[[int, int], np.ndarray]] = {
        "average accuracy": lambda j, _: final[..., j],
        "backward transfer": lambda j, state: final[..., j] - accuracy[..., state, j],
        "forward transfer": lambda j, state: accuracy[..., state - 1, j] - accuracy[..., 0, j],
        "forgetting": lambda j, _: accuracy[..., first:newest, j].max(-1) - final[..., j],
    }
    nothing = np.full(accuracy.shape[:-2], math.nan)
    found = {}
    for name, formula in formulas.items():
        values = [formula(j, learned[j]) for j in known[name]]  # type: ignore[arg-type]
        found[name] = np.mean(values, axis=0) if values else nothing
    return found


def among(learned: Sequence[int | None], newest: int) -> dict[str, list[int]]:
    """The datasets that each measure averages, in the state ``newest``."""
    tasks = [(j, state) for j, state in enumerate(learned) if state is not None and state <= newest]
    old = [j for j, state in tasks if state < newest]
    return {
        "average accuracy": [j for j, _ in tasks],
        "backward transfer": old,
        "forward transfer": [j for j, state in tasks if state > 1],
        "forgetting": old,
    }


def resampled(scores: Sequence[np.ndarray], seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """R of bootstrap samples of each dataset's questions, the same questions in every state.

    Args:
        scores: of each dataset ``(states, questions)``: the mean over a question's samples.

    Returns:
        ``(resamples, states, datasets)``.
    """
    source = np.random.default_rng(seed)
    columns = []
    for values in scores:
        questions = values.shape[1]
        rows = max(1, _BATCH // questions)
        parts = [
            source.multinomial(questions, np.full(questions, 1 / questions), size=min(rows, resamples - done))
            @ values.T
            / questions
            for done in range(0, resamples, rows)
        ]
        columns.append(np.concatenate(parts))
    return np.stack(columns, axis=-1)


def analyse(
    states: Sequence[str], datasets: Sequence[LearnedDataset], scores: Mapping[tuple[str, str], Scores], seed: int
) -> Forgetting:
    """The report of the states played so far.

    Args:
        scores: by (state, dataset); every state must hold every dataset's questions.
        seed: of the intervals.
    """
    learned, newest = [dataset.learned for dataset in datasets], len(states) - 1
    values = [_matrix(states, dataset.name, scores) for dataset in datasets]
    accuracy = np.stack([matrix.mean(1) for matrix in values], axis=-1)
    samples = resampled(values, seed)
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    spread, names = measure(samples, learned), among(learned, newest)
    measures = [
        Measure(name, _estimate(float(value), spread[name]), tuple(datasets[j].name for j in names[name]))
        for name, value in measure(accuracy, learned).items()
    ]
    cells = [
        tuple(
            Estimate(float(accuracy[i, j]), float(low[i, j]), float(high[i, j]))
            if values[j].shape[1] > 1
            else Estimate(float(accuracy[i, j]), math.nan, math.nan)
            for j in range(len(datasets))
        )
        for i in range(len(states))
    ]
    before = {dataset.name: states[0] for dataset in datasets} if newest else {}
    after = {datasets[j].name: states[learned[j]] for j in names["backward transfer"]}  # type: ignore[index]
    return Forgetting(
        tuple(states),
        tuple(datasets),
        tuple(cells),
        tuple(measures),
        _changes(states[-1], before, scores, seed),
        _changes(states[-1], after, scores, seed),
    )


def _matrix(states: Sequence[str], dataset: str, scores: Mapping[tuple[str, str], Scores]) -> np.ndarray:
    """A dataset's scores, ``(states, questions)``."""
    questions = list(scores[states[0], dataset])
    return np.array([[np.mean(scores[state, dataset][question]) for question in questions] for state in states])


def _estimate(value: float, spread: np.ndarray) -> Estimate:
    low, high = np.quantile(spread, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _changes(
    newest: str, since: Mapping[str, str], scores: Mapping[tuple[str, str], Scores], seed: int
) -> tuple[Change, ...]:
    found = [
        (dataset, state, paired(scores[newest, dataset], scores[state, dataset], seed))
        for dataset, state in since.items()
    ]
    corrected = holm([difference.p for *_, difference in found])
    return tuple(Change(*change, p) for change, p in zip(found, corrected, strict=True))
