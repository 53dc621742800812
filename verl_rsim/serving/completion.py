"""Chat completions in OpenAI's format: one object, or a stream of chunks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from verl_rsim.core.strategies import Strategy
from verl_rsim.serving.events import EpisodeFinished, Event, StrategyChosen, TextDelta, TokenCounts
from verl_rsim.serving.protocol import ChatRequest, RsimOptions


@dataclass(frozen=True)
class Completion:
    """Converts the events of one request into OpenAI's response objects.

    Attributes:
        model: the served model's name.
        request: the request that is answered.
        id: the completion's id; all chunks of a stream have the same.
        created: Unix time in seconds.
    """

    model: str
    request: ChatRequest
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def collect(self, events: AsyncIterator[Event]) -> dict[str, Any]:
        """Returns the completion as one object, with the answers ordered by index."""
        finished = [event async for event in events if isinstance(event, EpisodeFinished)]
        finished.sort(key=lambda event: event.index)
        choices = []
        for event in finished:
            message = {"role": "assistant", "content": event.text, "refusal": None}
            if self.request.rsim.strategies == "reasoning_content":
                message["reasoning_content"] = "".join(reasoning_line(turn.strategy) for turn in event.turns)
            choice = {"index": event.index, "message": message, "finish_reason": event.finish_reason, "logprobs": None}
            choices.append(choice | {"rsim": rsim_field(event, self.request.rsim)})
        return {**self._header("chat.completion"), "choices": choices, "usage": usage(finished)}

    async def chunks(self, events: AsyncIterator[Event]) -> AsyncIterator[dict[str, Any]]:
        """Yields the completion as chunks, one for each event that the client asked for."""
        finished = []
        for index in range(self.request.n):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async for event in events:
            if isinstance(event, TextDelta):
                yield self._chunk(event.index, {"content": event.text})
            elif isinstance(event, EpisodeFinished):
                finished.append(event)
                yield self._chunk(event.index, {}, event.finish_reason, rsim_field(event, self.request.rsim))
            elif isinstance(event, StrategyChosen) and self.request.rsim.strategies != "none":
                in_reasoning = self.request.rsim.strategies == "reasoning_content"
                delta = {"reasoning_content": reasoning_line(event.strategy)} if in_reasoning else {}
                yield self._chunk(event.index, delta, rsim={"turn": event.turn, "strategy": event.strategy.name})
        if self.request.stream_options.include_usage:
            yield {**self._header("chat.completion.chunk"), "choices": [], "usage": usage(finished)}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None = None, rsim: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        if rsim:
            choice["rsim"] = rsim
        chunk = {**self._header("chat.completion.chunk"), "choices": [choice]}
        # OpenAI's API: with include_usage every chunk has the field; it is null in all but the last.
        if self.request.stream_options.include_usage:
            chunk["usage"] = None
        return chunk

    def _header(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def reasoning_line(strategy: Strategy) -> str:
    """Returns a strategy as a line of ``reasoning_content``."""
    return f"[{strategy.title}] {strategy.instruction}\n"


def rsim_field(event: EpisodeFinished, options: RsimOptions) -> dict[str, Any]:
    """Returns the field ``rsim`` of a choice: the reason for the episode's end, and its turns."""
    turns = []
    for summary in event.turns:
        turn: dict[str, Any] = {"strategy": summary.strategy.name, "tokens": summary.tokens, "end": summary.end}
        if options.return_token_ids:
            turn["choice_ids"] = summary.choice_ids
            turn["injected_ids"] = summary.injected_ids
            turn["step_ids"] = summary.step_ids
        turns.append(turn)
    return {"stop": event.stop, "turns": turns}


def usage(finished: Sequence[EpisodeFinished]) -> dict[str, Any]:
    """Returns the token counts of both models, summed over all answers."""
    planner = _sum(event.planner for event in finished)
    reasoner = _sum(event.reasoner for event in finished)
    prompt, completion = planner.prompt + reasoner.prompt, planner.completion + reasoner.completion
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "rsim": {
            "planner": {"prompt_tokens": planner.prompt, "completion_tokens": planner.completion},
            "reasoner": {"prompt_tokens": reasoner.prompt, "completion_tokens": reasoner.completion},
        },
    }


def _sum(all_counts: Iterable[TokenCounts]) -> TokenCounts:
    prompt = completion = 0
    for counts in all_counts:
        prompt += counts.prompt
        completion += counts.completion
    return TokenCounts(prompt, completion)


def server_sent_event(data: dict[str, Any] | str) -> str:
    """Returns a server-sent event with ``data``, which is encoded as JSON unless it is a string."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
