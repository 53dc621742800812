"""Answers in OpenAI's form: one object, or a stream of chunks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from verl_rsim.core.strategies import Strategy
from verl_rsim.serving.events import Chose, Counts, EpisodeFinished, Event, Wrote
from verl_rsim.serving.protocol import ChatRequest, Extension


@dataclass(frozen=True)
class Completion:
    """One completion's identity, and its two forms."""

    model: str
    asked: ChatRequest
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, events: AsyncIterator[Event]) -> dict[str, Any]:
        """The completion as one object."""
        finished = sorted(
            [event async for event in events if isinstance(event, EpisodeFinished)], key=lambda e: e.index
        )
        choices = []
        for event in finished:
            message = {"role": "assistant", "content": event.text, "refusal": None}
            if self.asked.rsim.strategies == "reasoning_content":
                message["reasoning_content"] = "".join(thought(step.strategy) for step in event.steps)
            choice = {"index": event.index, "message": message, "finish_reason": event.finish_reason, "logprobs": None}
            choices.append(choice | {"rsim": extension(event, self.asked.rsim)})
        return {**self._head("chat.completion"), "choices": choices, "usage": usage(finished)}

    async def chunks(self, events: AsyncIterator[Event]) -> AsyncIterator[dict[str, Any]]:
        """The completion as chunks, one an event."""
        finished = []
        for index in range(self.asked.n):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async for event in events:
            if isinstance(event, Wrote):
                yield self._chunk(event.index, {"content": event.text})
            elif isinstance(event, EpisodeFinished):
                finished.append(event)
                yield self._chunk(event.index, {}, event.finish_reason, extension(event, self.asked.rsim))
            elif isinstance(event, Chose) and self.asked.rsim.strategies != "none":
                named = self.asked.rsim.strategies == "reasoning_content"
                delta = {"reasoning_content": thought(event.strategy)} if named else {}
                yield self._chunk(event.index, delta, rsim={"turn": event.turn, "strategy": event.strategy.name})
        if self.asked.stream_options.include_usage:
            yield {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(finished)}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None = None, rsim: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice | ({"rsim": rsim} if rsim else {})]}
        return chunk | ({"usage": None} if self.asked.stream_options.include_usage else {})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def thought(strategy: Strategy) -> str:
    """A strategy as a line of ``reasoning_content``."""
    return f"[{strategy.title}] {strategy.instruction}\n"


def extension(event: EpisodeFinished, asked: Extension) -> dict[str, Any]:
    """The field ``rsim`` of a choice: the episode behind it."""
    turns = []
    for step in event.steps:
        turn: dict[str, Any] = {"strategy": step.strategy.name, "tokens": step.tokens, "end": step.end}
        if asked.return_token_ids:
            turn |= {"choice_ids": step.choice_ids, "injected_ids": step.injected_ids, "step_ids": step.step_ids}
        turns.append(turn)
    return {"stop": event.stop, "turns": turns}


def usage(finished: Iterable[EpisodeFinished]) -> dict[str, Any]:
    """Tokens of both models, over all answers."""
    finished = list(finished)
    roles = {"planner": _sum(e.planner for e in finished), "reasoner": _sum(e.reasoner for e in finished)}
    read, written = (sum(getattr(counts, kind) for counts in roles.values()) for kind in ("read", "written"))
    each = {role: {"prompt_tokens": c.read, "completion_tokens": c.written} for role, c in roles.items()}
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, "rsim": each}


def _sum(counts: Iterable[Counts]) -> Counts:
    counts = list(counts)
    return Counts(sum(c.read for c in counts), sum(c.written for c in counts))


def sse(data: dict[str, Any] | str) -> str:
    """A server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"
