"""Stock verl agent loop that repeats an rSIM episode's calls, with the same numbers of tokens."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.utils.profiler import simple_timer


class Replay(AgentLoopBase):
    """Generates one row.

    ``extra_info.shape`` holds the prompt's token ids and, per call, the given ids and the number of tokens to generate.
    """

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Generates the row."""
        shape = json.loads(kwargs["extra_info"]["shape"])
        prompt, session = shape["prompt"], uuid4().hex
        response: list[int] = []
        mask: list[int] = []
        log_probs: list[float] = []
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            for given, count in shape["calls"]:
                response += given
                output = await self.server_manager.generate(
                    request_id=session,
                    prompt_ids=prompt + response,
                    sampling_params={**sampling_params, "max_tokens": count, "min_tokens": count},
                )
                response += output.token_ids
                mask += [0] * len(given) + [1] * len(output.token_ids)
                log_probs += [0.0] * len(given) + list(output.log_probs)
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=response,
            response_mask=mask,
            response_logprobs=log_probs,
            num_turns=len(shape["calls"]),
            metrics=AgentLoopMetrics(generate_sequences=timing["generate_sequences"], num_preempted=-1),
            extra_fields={**output.extra_fields, "turn_scores": [], "tool_rewards": []},
        )


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict) -> float:
    """Returns a reward for the planner; its value does not matter for the time of a step."""
    return float(len(solution_str) % 2)
