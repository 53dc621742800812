"""Metrics of healthy training steps, and summaries of small batches."""

from __future__ import annotations

from verl_rsim.core.strategies import strategy_index

REFLECT, DECOMPOSE, TERMINATE = map(strategy_index, ("self_reflection", "decomposition", "termination"))


def summary(strategies, stop, lengths, keywords=None, ends=None):
    return {
        "strategies": strategies,
        "unparsed": [],
        "stop": stop,
        "step_tokens": lengths,
        "step_ends": ends or ["delimiter"] * len(strategies),
        "step_keywords": keywords or [[]] * len(strategies),
        "choice_tokens": len(strategies),
        "seconds": {"planner": 0.5, "reasoner": 1.5},
    }


BATCH = [
    summary([REFLECT, TERMINATE], "termination", [4, 6], [[REFLECT], [TERMINATE]]),
    summary([REFLECT, REFLECT], "max_turns", [2, 8], [[], [DECOMPOSE]], ["delimiter", "length"]),
    summary([TERMINATE], "termination", [5], [[REFLECT]]),
]

INFO = {
    "acc": 1.0,
    "planner_reward": 1.1,
    "reasoner_reward": 1.0,
    "planner_accuracy": 1.0,
    "planner_termination": 0.1,
    "planner_diversity": 0.0,
    "planner_unparsed": 0.0,
}

WELL = {
    "strategy/entropy": 1.5,
    "strategy/decomposition": 0.5,
    "strategy/termination": 0.3,
    "strategy/termination/turn/1": 0.1,
    "rsim/step_tokens": 30.0,
    **{f"{role}/weight": 0.5 for role in ("planner", "reasoner")},
    **{f"{role}/zero_groups": 0.4 for role in ("planner", "reasoner")},
    **{f"{role}/{name}": 0.01 for role in ("planner", "reasoner") for name in ("ppo_kl", "loss", "grad_norm")},
}
