"""What an evaluation found, computed from its records alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verl_rsim.core.controls import BASE_PLANNER, CONTROLS, PLANNER
from verl_rsim.core.dialogue import Stop
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.evaluation.records import Record
from verl_rsim.evaluation.statistics import Difference, Estimate, bootstrap, holm, majority, paired

ORDER = (*CONTROLS, BASE_PLANNER, PLANNER)


@dataclass(frozen=True, slots=True)
class StrategyUse:
    """How one strategy was used under a condition.

    Attributes:
        share: of all choices.
        answers: in which it was chosen at least once.
        win_rate: share of those answers that are right; nan if there are none.
        keywords: how often its key words occur in an answer, on average.
    """

    share: float
    answers: int
    win_rate: float
    keywords: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One condition. Means are over questions; tokens and seconds are of one answer.

    Attributes:
        questions, samples: how many questions, and the most samples that one of them has.
        accuracy: mean@k.
        best: share of questions that at least one of the samples gets right (best@k).
        majority: maj@k; None where no answer can vote, as programs.
        strategies_chosen: different strategies that the planner chose in an answer.
        strategies_shown: different strategies whose key words occur in what the reasoner wrote.
        stops: share of answers by why they ended.
        use: of each strategy, by name.
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
    """A planner against a control; ``p_holm`` is corrected for all comparisons of that planner."""

    condition: str
    control: str
    difference: Difference
    p_holm: float


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: its conditions (controls, untrained planner, planner) and the planners' comparisons."""

    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]


def report(records: Sequence[Record], seed: int = 0) -> Report:
    """Summarise records; the same records and seed give the same numbers."""
    conditions = group(records)
    names = sorted(conditions, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    comparisons = []
    for planner in (name for name in names if name in (PLANNER, BASE_PLANNER)):
        others = [name for name in names if name not in (planner, PLANNER)]
        found = [(name, paired(scores(conditions[planner]), scores(conditions[name]), seed)) for name in others]
        found = [(name, difference) for name, difference in found if difference.questions]
        corrected = holm([difference.p for _, difference in found])
        comparisons += [Comparison(planner, *pair, p) for pair, p in zip(found, corrected, strict=True)]
    return Report(tuple(summarize(name, conditions[name], seed) for name in names), tuple(comparisons))


def group(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records by condition."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        grouped[record.condition].append(record)
    return dict(grouped)


def by_question(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records of one condition by question, each list in the order of samples; questions in a fixed order."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.question, record.sample)):
        grouped[record.question].append(record)
    return dict(grouped)


def scores(records: Iterable[Record]) -> dict[str, list[float]]:
    """The samples' scores of each question, of the records of one condition."""
    return {question: [record.correct for record in group] for question, group in by_question(records).items()}


def summarize(condition: str, records: Sequence[Record], seed: int = 0) -> Summary:
    """Summarise the records of one condition."""
    questions = list(by_question(records).values())

    def mean(name: str) -> float:
        return _mean([_mean([getattr(record, name) for record in group]) for group in questions])

    counts = Counter(record.stop for record in records)
    silent = all(record.answer is None for record in records)
    votes = [majority([r.answer for r in group], [r.correct for r in group]) for group in questions]
    return Summary(
        condition=condition,
        questions=len(questions),
        samples=max(len(group) for group in questions),
        accuracy=bootstrap([_mean([record.correct for record in group]) for group in questions], seed),
        best=bootstrap([max(record.correct for record in group) for group in questions], seed),
        majority=None if silent else bootstrap(votes, seed),
        planner_tokens=mean("planner_tokens"),
        planner_read=mean("planner_read"),
        planner_seconds=mean("planner_seconds"),
        reasoner_tokens=mean("reasoner_tokens"),
        reasoner_read=mean("reasoner_read"),
        reasoner_seconds=mean("reasoner_seconds"),
        seconds=mean("seconds"),
        turns=_mean([len(record.strategies) for record in records]),
        strategies_chosen=_mean([len(set(record.strategies)) for record in records]),
        strategies_shown=_mean([sum(count > 0 for count in record.keywords) for record in records]),
        stops={stop.value: counts[stop.value] / len(records) for stop in Stop},
        use={strategy.name: _use(index, records) for index, strategy in enumerate(STRATEGIES)},
    )


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
