"""Computes the numbers of an evaluation's report from its records alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verl_rsim.core.controls import BASE_PLANNER, CONTROLS, PLANNER
from verl_rsim.core.episode import Stop
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.evaluation.records import Record
from verl_rsim.evaluation.statistics import Difference, Estimate, bootstrap, holm, majority, paired

ORDER = (*CONTROLS, BASE_PLANNER, PLANNER)


@dataclass(frozen=True, slots=True)
class StrategyUse:
    """Holds statistics on one strategy under a condition.

    Attributes:
        share: share of all choices.
        answers: number of answers in which it was chosen at least once.
        win_rate: share of those answers that are right; nan if there are none.
        keywords: mean number of its key words in an answer.
    """

    share: float
    answers: int
    win_rate: float
    keywords: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Holds the results of one condition; means are over questions, tokens and seconds per answer.

    Attributes:
        condition: name of the condition.
        questions: number of questions.
        samples: most samples of any question (k).
        accuracy: mean@k.
        best: share of questions with at least one right sample (best@k).
        majority: maj@k; None if no answer can vote, e.g. programs.
        planner_tokens, planner_read, planner_seconds, reasoner_tokens, reasoner_read, reasoner_seconds, seconds: means
            of the fields of :class:`verl_rsim.evaluation.records.Record`.
        turns: mean number of choices in an answer.
        strategies_chosen: mean number of different strategies chosen in an answer.
        strategies_shown: mean number of different strategies whose key words occur in the reasoner's text.
        stops: share of answers by the reason for which they ended.
        use: statistics on each strategy, by name.
    """

    condition: str
    questions: int
    samples: int
    accuracy: Estimate
    best: Estimate
    majority: Estimate | None
    planner_tokens: float
    planner_read: float
    planner_seconds: float
    reasoner_tokens: float
    reasoner_read: float
    reasoner_seconds: float
    seconds: float
    turns: float
    strategies_chosen: float
    strategies_shown: float
    stops: dict[str, float]
    use: dict[str, StrategyUse]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares a planner with a control; ``p_holm`` is corrected for all comparisons of that planner."""

    condition: str
    control: str
    difference: Difference
    p_holm: float


@dataclass(frozen=True, slots=True)
class Report:
    """Holds the results of an evaluation: one summary per condition, and the planners' comparisons with controls."""

    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]


def report(records: Sequence[Record], seed: int = 0) -> Report:
    """Builds the report of an evaluation; the same records and seed give the same numbers."""
    conditions = group(records)
    names = sorted(conditions, key=_condition_order)
    comparisons = []
    for planner in (name for name in names if name in (PLANNER, BASE_PLANNER)):
        others = [name for name in names if name not in (planner, PLANNER)]
        differences: dict[str, Difference] = {}
        for control in others:
            difference = paired(scores(conditions[planner]), scores(conditions[control]), seed)
            if difference.questions:
                differences[control] = difference
        corrected = holm([difference.p for difference in differences.values()])
        for (control, difference), p in zip(differences.items(), corrected, strict=True):
            comparisons.append(Comparison(planner, control, difference, p))
    return Report(tuple(summarize(name, conditions[name], seed) for name in names), tuple(comparisons))


def _condition_order(name: str) -> tuple[int, str]:
    """Sorts conditions by their order in the report's tables."""
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def group(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Groups records by condition."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        grouped[record.condition].append(record)
    return dict(grouped)


def by_question(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Groups records of one condition by question, sorted by question and sample."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.question, record.sample)):
        grouped[record.question].append(record)
    return dict(grouped)


def scores(records: Iterable[Record]) -> dict[str, list[float]]:
    """Returns the samples' scores (0 or 1) of each question, from the records of one condition."""
    values: dict[str, list[float]] = defaultdict(list)
    for question, samples in by_question(records).items():
        values[question] += (record.correct for record in samples)
    return dict(values)


def summarize(condition: str, records: Sequence[Record], seed: int = 0) -> Summary:
    """Summarises the records of one condition."""
    questions = list(by_question(records).values())
    correct = [[record.correct for record in samples] for samples in questions]

    def mean(field: str) -> float:
        """Returns the mean over questions of the mean over samples."""
        return _mean([_mean([getattr(record, field) for record in samples]) for samples in questions])

    stops = Counter(record.stop for record in records)
    return Summary(
        condition=condition,
        questions=len(questions),
        samples=max(map(len, questions)),
        accuracy=bootstrap(list(map(_mean, correct)), seed),
        best=bootstrap(list(map(max, correct)), seed),
        majority=_majority(questions, seed),
        planner_tokens=mean("planner_tokens"),
        planner_read=mean("planner_read"),
        planner_seconds=mean("planner_seconds"),
        reasoner_tokens=mean("reasoner_tokens"),
        reasoner_read=mean("reasoner_read"),
        reasoner_seconds=mean("reasoner_seconds"),
        seconds=mean("seconds"),
        turns=_mean([len(record.strategies) for record in records]),
        strategies_chosen=_mean([len(set(record.strategies)) for record in records]),
        strategies_shown=_mean([_strategies_shown(record) for record in records]),
        stops={stop.value: stops[stop.value] / len(records) for stop in Stop},
        use={strategy.name: _use(index, records) for index, strategy in enumerate(STRATEGIES)},
    )


def _majority(questions: Sequence[Sequence[Record]], seed: int) -> Estimate | None:
    """Returns maj@k, or None if no sample has an answer that can vote."""
    values = []
    has_votes = False
    for samples in questions:
        votes = [record.answer for record in samples]
        has_votes = has_votes or any(vote is not None for vote in votes)
        values.append(majority(votes, [record.correct for record in samples]))
    return bootstrap(values, seed) if has_votes else None


def _strategies_shown(record: Record) -> int:
    return sum(count > 0 for count in record.keywords)


def _use(index: int, records: Sequence[Record]) -> StrategyUse:
    name = STRATEGIES[index].name
    chosen = sum(record.strategies.count(name) for record in records)
    using = [record.correct for record in records if name in record.strategies]
    total = sum(len(record.strategies) for record in records)
    return StrategyUse(
        share=chosen / total if total else 0.0,
        answers=len(using),
        win_rate=_mean(using),
        keywords=_mean([record.keywords[index] for record in records]),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
