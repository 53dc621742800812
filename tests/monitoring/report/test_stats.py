"""The report's statistics against values computed by hand."""

from __future__ import annotations

import pytest
from support.episode_records import episode, turn

from verl_rsim.core.strategies import STRATEGIES, strategy_index
from verl_rsim.monitoring.report.stats import ShareEstimate, Tally, difference, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # z^2 = 3.841459. 8 of 10: centre (0.8 + 0.192073) / 1.384146 = 0.716740,
        # half 1.959964 / 1.384146 * sqrt(0.016 + 0.00960365) = 0.226577
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 0.277533),  # 3.841459 / 13.841459
        (10, 10, 0.722467, 1.0),
        (56, 70, 0.691805, 0.877047),  # first sample of Newcombe (1998), table II (a)
        (48, 80, 0.490363, 0.700424),
    ],
)
def test_wilson(successes, total, low, high):
    found = wilson(successes, total)
    assert (found.value, found.count) == (successes / total, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_no_trials_have_no_proportion():
    assert wilson(0, 0) is None
    assert difference(None, wilson(1, 2)) is None


def test_difference_is_that_of_newcombes_paper():
    """56 of 70 against 48 of 80: method 10 gives 0.0524 to 0.3339."""
    found = difference(wilson(56, 70), wilson(48, 80))
    assert found == ShareEstimate(
        pytest.approx(0.2), pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4), 150
    )


@pytest.fixture
def tally() -> Tally:
    """Three episodes: right with validation twice, wrong with it once, right without."""
    found = Tally()
    found.add(episode("validation", "validation", "termination", acc=1.0, planner_reward=1.1))
    found.add(episode("validation", "decomposition", acc=0.0))
    found.add(episode("termination", acc=1.0, planner_reward=1.1))
    return found


def test_shares_and_means(tally):
    stats = {item.name: item for item in tally.strategies()}
    assert [item.name for item in tally.strategies()] == [strategy.name for strategy in STRATEGIES]
    assert (stats["validation"].turns, stats["validation"].share) == (3, 3 / 6)
    assert stats["validation"].per_answer == 1.0
    assert stats["termination"].per_answer == pytest.approx(2 / 3)
    assert tally.mean(tally.planner_reward) == pytest.approx(2.2 / 3)
    assert (tally.accuracy().value, tally.tokens, tally.stops) == (2 / 3, 30, {"termination": 2, "max_turns": 1})


def test_win_rate_and_lift_compare_episodes_with_and_without(tally):
    stats = {item.name: item for item in tally.strategies()}
    assert (stats["validation"].win_rate.value, stats["validation"].win_rate.count) == (0.5, 2)
    assert stats["validation"].lift.value == pytest.approx(0.5 - 1.0)
    assert stats["termination"].lift.value == pytest.approx(1.0 - 0.0)
    assert stats["summarization"].win_rate is None
    assert stats["summarization"].lift is None


def test_transitions_begin_and_end(tally):
    rows = tally.transitions()
    validation, decomposition, termination = map(strategy_index, ("validation", "decomposition", "termination"))
    begin = end = len(STRATEGIES)
    assert rows[begin][validation] == pytest.approx(2 / 3)
    assert rows[begin][termination] == pytest.approx(1 / 3)
    assert [rows[validation][i] for i in (validation, decomposition, termination)] == pytest.approx([1 / 3] * 3)
    assert rows[decomposition][end] == rows[termination][end] == 1.0
    assert sum(rows[strategy_index("summarization")]) == 0


def test_key_words_are_counted_in_what_the_reasoner_wrote():
    found = Tally()
    found.add(episode(turns=(turn("continuation", "Wait, wait. Let me check."), turn("termination", "The answer is"))))
    found.add(episode("continuation"))
    stats = {item.name: item.keywords_per_answer for item in found.strategies()}
    assert (stats["self_reflection"], stats["validation"], stats["termination"]) == (1.0, 0.5, 0.5)


def test_an_episode_without_turns_counts_as_one_without_strategies():
    found = Tally()
    found.add(episode(stop="prompt_too_long"))
    assert (found.episodes, found.moves, found.strategies()[0].share) == (1, {}, 0.0)
