"""What a batch of episodes did, as scalars for verl's loggers. Pure Python.

The names are explained in docs/metrics.md, one table for all; a test compares it with what is logged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from verl_rsim.core.dialogue import StepEnd, Stop

ROLES = ("planner", "reasoner")
SAME_REWARD = 1e-6
"""Rewards closer than this give a group no advantage worth the name."""


def rollout_metrics(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of the dialogues: turns, how episodes and steps ended, tokens, time.

    Args:
        summaries: one per episode, as :func:`verl_rsim.training.agent_loop.summary` makes them; at least one.
    """
    total = len(summaries)
    stops = Counter(summary["stop"] for summary in summaries)
    ends = Counter(end for summary in summaries for end in summary["step_ends"])
    lengths = [length for summary in summaries for length in summary["step_tokens"]]
    turn_counts = [len(summary["strategies"]) for summary in summaries]
    turns = max(1, sum(turn_counts))
    found = {
        "rsim/turns": fmean(turn_counts),
        "rsim/turns/min": min(turn_counts),
        "rsim/turns/max": max(turn_counts),
        **{f"rsim/stop/{stop.value}": stops[stop.value] / total for stop in Stop},
        "rsim/step_tokens": fmean(lengths) if lengths else 0.0,
        **{f"rsim/step_end/{end.value}": ends[end.value] / turns for end in StepEnd},
        "rsim/truncated": sum(map(_truncated, summaries)) / total,
        "rsim/unparsed": sum(len(summary["unparsed"]) for summary in summaries) / turns,
        "rsim/episodes": total,
        "planner/generated_tokens": sum(summary["choice_tokens"] for summary in summaries),
        "reasoner/generated_tokens": sum(lengths),
    }
    return found | {
        f"{role}/server_seconds": fmean(summary["seconds"][role] for summary in summaries) for role in ROLES
    }


def _truncated(summary: Mapping[str, Any]) -> bool:
    """Whether room or a limit of tokens ended the episode, rather than one of the two models."""
    cut = summary["step_ends"][-1:] == [StepEnd.LENGTH.value]
    return cut or summary["stop"] in (Stop.BUDGET.value, Stop.PROMPT_TOO_LONG.value)


def reward_metrics(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of the rewards.

    Args:
        infos: one ``reward_extra_info`` per episode; at least one.
    """
    metrics: dict[str, float] = {"reasoner/acc": fmean(info["acc"] for info in infos)}
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
    """Share of questions from which a role learns nothing, since all their episodes have the same reward.

    Args:
        keys: verl's row keys ``{uid}_{session}_{index}`` of one role's rows; the uid is the question's.
        infos: the same episodes' ``reward_extra_info``; at least one.
    """
    questions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for key, info in zip(keys, infos, strict=True):
        questions[key.rsplit("_", 2)[0]].append(info)
    found = {}
    for role in ROLES:
        rewards = [[info[f"{role}_reward"] for info in group] for group in questions.values()]
        found[f"{role}/zero_groups"] = fmean(max(group) - min(group) < SAME_REWARD for group in rewards)
    return found
