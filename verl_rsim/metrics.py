"""What a batch of interactions did, as scalars for verl's loggers. Pure Python.

=============================== =================================================================================
``strategy/{name}``             share of turns that used the strategy
``strategy/entropy``            entropy of those shares, in nats (ln 9 = 2.197 when all are equally frequent)
``strategy/per_interaction``    different strategies in an interaction, mean
``rsim/turns``                  turns of an interaction, mean (``/min``, ``/max``)
``rsim/stop/{reason}``          share of interactions that ended for this reason
``rsim/step_tokens``            tokens of a step, mean
``rsim/step_end/{reason}``      share of steps that ended for this reason
``rsim/unparsed``               share of turns in which a free-form planner named no strategy
``rsim/interactions``           interactions in the batch
``rsim/failed``                 interactions that failed (an error, not a wrong answer)
``{role}/reward``               mean reward of the role (``/std``)
``planner/reward/{part}``       mean of each part
``reasoner/acc``                mean accuracy
``reasoner/answered``           share of interactions in which an answer was found (``rsim*`` reward managers)
``reasoner/passed``             mean share of tests passed; the accuracy where there are no tests
``reasoner/reason/{reason}``    share with this reason of the score: right, wrong, no_answer, timeout, syntax_error ...
``reasoner/score_seconds``      what scoring an answer took, mean, waiting for a free worker included
``reasoner/score_queue``        answers before it at the scorer, mean
``reasoner/scorer_failed``      share whose scoring timed out or crashed
=============================== =================================================================================
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from verl_rsim.dialogue import StepEnd, Stop
from verl_rsim.strategies import STRATEGIES


def interaction_metrics(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of the dialogues.

    Args:
        summaries: one per interaction, as :func:`verl_rsim.rollout.summary` makes them; at least one.
    """
    total = len(summaries)
    chosen = [index for summary in summaries for index in summary["strategies"]]
    counts, turns = Counter(chosen), max(1, len(chosen))
    shares = [counts[index] / turns for index in range(len(STRATEGIES))]
    stops = Counter(summary["stop"] for summary in summaries)
    ends = Counter(end for summary in summaries for end in summary["step_ends"])
    lengths = [length for summary in summaries for length in summary["step_tokens"]]
    turn_counts = [len(summary["strategies"]) for summary in summaries]
    return {
        **{f"strategy/{strategy.name}": share for strategy, share in zip(STRATEGIES, shares, strict=True)},
        "strategy/entropy": -sum(share * math.log(share) for share in shares if share),
        "strategy/per_interaction": fmean(len(set(summary["strategies"])) for summary in summaries),
        "rsim/turns": fmean(turn_counts),
        "rsim/turns/min": min(turn_counts),
        "rsim/turns/max": max(turn_counts),
        **{f"rsim/stop/{stop.value}": stops[stop.value] / total for stop in Stop},
        "rsim/step_tokens": fmean(lengths) if lengths else 0.0,
        **{f"rsim/step_end/{end.value}": ends[end.value] / turns for end in StepEnd},
        "rsim/unparsed": sum(summary["unparsed"] for summary in summaries) / turns,
        "rsim/interactions": total,
    }


def reward_metrics(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of the rewards.

    Args:
        infos: one ``reward_extra_info`` per interaction; at least one.
    """
    metrics: dict[str, float] = {"reasoner/acc": fmean(info["acc"] for info in infos)}
    for key in ("answered", "passed", "scorer_failed", "score_seconds", "score_queue"):
        if all(key in info for info in infos):
            metrics[f"reasoner/{key}"] = fmean(info[key] for info in infos)
    if all("reason" in info for info in infos):
        reasons = Counter(str(info["reason"]) for info in infos)
        metrics |= {f"reasoner/reason/{name}": count / len(infos) for name, count in reasons.items()}
    for role in ("planner", "reasoner"):
        rewards = [info[f"{role}_reward"] for info in infos]
        metrics |= {f"{role}/reward": fmean(rewards), f"{role}/reward/std": pstdev(rewards)}
    for key in infos[0]:
        if key.startswith("planner_") and key != "planner_reward":
            metrics[f"planner/reward/{key.removeprefix('planner_')}"] = fmean(info[key] for info in infos)
    return metrics
