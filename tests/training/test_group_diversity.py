from __future__ import annotations

from verl_rsim.training.group_diversity import diversities


def test_episodes_are_compared_within_their_question_whatever_the_order():
    keys = ["q_1_0_0", "r_0_0", "q_1_1_0", "r_1_0"]  # a uid may hold underscores
    assert diversities(keys, [[0], [5], [1], [5]]) == [1.0, 0.0, 1.0, 0.0]
