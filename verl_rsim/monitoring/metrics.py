"""Computes scalars about a batch of episodes for verl's loggers. Pure Python.

docs/metrics.md explains every name in one table; a test compares the table with what is logged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from verl_rsim.core.episode import StepEnd, Stop

ROLES = ("planner", "reasoner")
REWARD_TOLERANCE = 1e-6
"""Rewards that differ by less count as equal.

verl's GRPO adds 1e-6 to the deviation that it divides by, so such rewards give next to no advantage.
"""


def rollout_metrics(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns metrics of the dialogues: turns, how episodes and steps ended, tokens, time.

    Args:
        summaries: One per episode, as :func:`verl_rsim.training.rollout_rows.episode_summary` makes them; at least one.
    """
    total = len(summaries)
    stops = Counter(summary["stop"] for summary in summaries)
    step_ends: Counter[str] = Counter()
    step_tokens: list[int] = []
    for summary in summaries:
        step_ends.update(summary["step_ends"])
        step_tokens += summary["step_tokens"]
    turn_counts = [len(summary["strategies"]) for summary in summaries]
    turns = max(1, sum(turn_counts))
    metrics = {
        "rsim/turns": fmean(turn_counts),
        "rsim/turns/min": min(turn_counts),
        "rsim/turns/max": max(turn_counts),
        **{f"rsim/stop/{stop.value}": stops[stop.value] / total for stop in Stop},
        "rsim/step_tokens": fmean(step_tokens) if step_tokens else 0.0,
        **{f"rsim/step_end/{end.value}": step_ends[end.value] / turns for end in StepEnd},
        "rsim/truncated": sum(map(_truncated, summaries)) / total,
        "rsim/unparsed": sum(len(summary["unparsed"]) for summary in summaries) / turns,
        "rsim/episodes": total,
        "planner/generated_tokens": sum(summary["choice_tokens"] for summary in summaries),
        "reasoner/generated_tokens": sum(step_tokens),
    }
    for role in ROLES:
        metrics[f"{role}/server_seconds"] = fmean(summary["seconds"][role] for summary in summaries)
    return metrics


def _truncated(summary: Mapping[str, Any]) -> bool:
    """Returns True if a token limit, rather than one of the two models, ended the episode."""
    cut_off = summary["step_ends"][-1:] == [StepEnd.LENGTH.value]
    return cut_off or summary["stop"] in (Stop.BUDGET.value, Stop.PROMPT_TOO_LONG.value)


def reward_metrics(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns metrics of the rewards.

    Args:
        infos: One ``reward_extra_info`` per episode; at least one.
    """
    metrics: dict[str, float] = {"reasoner/acc": fmean(info["acc"] for info in infos)}
    # These come from this package's reward managers; others may leave them out.
    for key in ("answered", "passed", "scorer_failed", "score_seconds", "score_queue"):
        if all(key in info for info in infos):
            metrics[f"reasoner/{key}"] = fmean(info[key] for info in infos)
    if all("reason" in info for info in infos):
        reasons = Counter(str(info["reason"]) for info in infos)
        metrics |= {f"reasoner/reason/{name}": count / len(infos) for name, count in reasons.items()}
    for role in ROLES:
        rewards = [info[f"{role}_reward"] for info in infos]
        metrics |= {f"{role}/reward": fmean(rewards), f"{role}/reward/std": pstdev(rewards)}
    for key in infos[0]:
        if key.startswith("planner_") and key != "planner_reward":
            metrics[f"planner/reward/{key.removeprefix('planner_')}"] = fmean(info[key] for info in infos)
    return metrics


def group_metrics(keys: Sequence[str], infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns, for each role, the share of questions whose episodes all have the same reward.

    A role learns nothing from such a question, since all its advantages are 0.

    Args:
        keys: verl's row keys ``{uid}_{session}_{index}`` of one role's rows; the uid is the question's.
        infos: ``reward_extra_info`` of the same episodes; at least one.
    """
    questions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for key, info in zip(keys, infos, strict=True):
        questions[key.rsplit("_", 2)[0]].append(info)  # from the right: a uid may hold underscores
    metrics = {}
    for role in ROLES:
        zero_groups = []
        for group in questions.values():
            rewards = [info[f"{role}_reward"] for info in group]
            zero_groups.append(max(rewards) - min(rewards) < REWARD_TOLERANCE)
        metrics[f"{role}/zero_groups"] = fmean(zero_groups)
    return metrics
