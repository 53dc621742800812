"""Converts a played episode into verl's rows: one of the planner, one of the reasoner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

from verl_rsim.core.episode import Episode, TokenRow
from verl_rsim.core.strategies import count_by_keyword
from verl_rsim.training.vllm_sampler import ServerSampler

PLANNER_ROW, REASONER_ROW = 0, 1
"""Index of each role's row in verl's row key ``{uid}_{session}_{index}``."""


def role_of(key: str) -> str:
    """Returns the role of a row from its key.

    Raises:
        ValueError: the key does not end with 0 or 1.
    """
    index = key.rsplit("_", 1)[-1]
    if index == str(PLANNER_ROW):
        return "planner"
    if index == str(REASONER_ROW):
        return "reasoner"
    raise ValueError(f"the row key {key!r} ends neither with {PLANNER_ROW} nor with {REASONER_ROW}")


class RsimRow(AgentLoopOutput):
    """Holds a row with the reward of its own role; verl would copy the last row's reward to all rows.

    Attributes:
        turn_rewards: reward of each turn; None if all of it comes at the end.
    """

    turn_rewards: list[float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields for TransferQueue: this role's reward at its last token, or each turn's at its own."""
        reward = self.extra_fields.get("reward_extra_info", {}).get(f"{self.extra_fields['role']}_reward")
        if reward is not None:
            self.reward_score = reward
        fields = super().as_dict()
        rewards = fields.pop("turn_rewards", None)
        ends = turn_ends(self.response_mask)
        if rewards and len(ends) == len(rewards):
            fields["rm_scores"][ends] = torch.tensor(rewards)
        return fields


def turn_ends(mask: Sequence[int]) -> list[int]:
    """Returns the positions of the last generated token of each turn."""
    ends = []
    for position, generated in enumerate(mask):
        last = position + 1 == len(mask) or not mask[position + 1]
        if generated and last:
            ends.append(position)
    return ends


def make_row(role: str, row: TokenRow, episode: Episode, sampler: ServerSampler, seconds: float, step: int) -> RsimRow:
    """Returns a role's row in verl's format.

    Args:
        role: "planner" or "reasoner".
        row: its tokens; at least one response token.
        episode: the episode it belongs to.
        sampler: the role's sampler, which knows its servers' weight versions and preemptions.
        seconds: time that the whole episode took.
        step: the training step that requested the episode.
    """
    return RsimRow(
        prompt_ids=list(row.prompt_ids),
        response_ids=list(row.response_ids),
        response_mask=list(row.mask),
        response_logprobs=list(row.log_probs),
        num_turns=len(episode.turns),
        metrics=AgentLoopMetrics(generate_sequences=seconds, num_preempted=sampler.preempted),
        extra_fields={
            "role": role,
            "turn_scores": [],
            "tool_rewards": [],
            "rsim": episode_summary(episode),
            # A server that does not say which weights it used has those of the step before.
            "min_global_steps": min(sampler.versions, default=step - 1),
            "max_global_steps": max(sampler.versions, default=step - 1),
        },
    )


def without_empty_response(row: TokenRow, prompt_length: int) -> TokenRow:
    """Gives a row without a response one masked token, since verl's rows hold at least one."""
    if row.response_ids:
        return row
    return TokenRow(row.prompt_ids[-prompt_length:], row.prompt_ids[-1:], (0,), (0.0,))


def episode_summary(episode: Episode) -> dict[str, Any]:
    """Returns what the metrics and the planner's reward need of an episode, in plain types."""
    turns = episode.turns
    return {
        "strategies": [turn.strategy for turn in turns],
        "unparsed": [position for position, turn in enumerate(turns) if not turn.parsed],
        "stop": episode.stop.value,
        "step_tokens": [len(turn.step.token_ids) for turn in turns],
        "step_ends": [turn.step_end.value for turn in turns],
        "step_keywords": [_strategies_by_keyword(turn.step_text) for turn in turns],
        "choice_tokens": sum(len(turn.choice.token_ids) for turn in turns),
    }


def _strategies_by_keyword(text: str) -> list[int]:
    """Returns the indices of the strategies whose key words occur in a step."""
    return [index for index, count in enumerate(count_by_keyword(text)) if count]
