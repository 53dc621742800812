"""Provides models for tests of the evaluation: an engine that answers by a rule, without weights."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from verl_rsim.core.episode import Generation
from verl_rsim.core.prompts import Codec
from verl_rsim.evaluation.engines.base import Engine
from verl_rsim.evaluation.models import Planner, Reasoner
from verl_rsim.utils.errors import EngineError


class RuleEngine(Engine):
    """Answers with ``rule(prompt text, seed)``, within the limits of the request, and records the requests.

    Attributes:
        requests: ``(prompt ids, params)`` in the order they came.
        dies_after: number of answers after which it raises EngineError.
    """

    def __init__(self, codec: Codec, rule: Callable[[str, int], str], dies_after: int | None = None):
        self.name, self.context = "rule", 1 << 20
        self.codec, self.rule, self.dies_after = codec, rule, dies_after
        self.requests: list[tuple[tuple[int, ...], dict]] = []
        self.starts = self.closes = self.at_once = self.most_at_once = 0

    async def start(self) -> None:
        self.starts += 1

    async def generate(self, prompt_ids, params, on_tokens=None) -> Generation:
        if self.dies_after is not None and len(self.requests) >= self.dies_after:
            raise EngineError("rule: the engine failed")
        self.requests.append((tuple(prompt_ids), dict(params)))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        seed = params.get("seed", 0)
        if allowed := params.get("allowed_token_ids"):
            ids = (random.Random(seed).choice(allowed),)
        else:
            text = self.rule(self.codec.decode(prompt_ids), seed)
            for stop in params.get("stop", ()):
                if stop in text:
                    text = text[: text.index(stop) + len(stop)]
            ids = self.codec.encode(text)[: params["max_tokens"]]
        self.at_once -= 1
        return Generation(ids, (-0.5,) * len(ids))

    async def check_health(self) -> None:
        if self.dies_after is not None and len(self.requests) >= self.dies_after:
            raise EngineError("rule: the engine failed")

    async def close(self) -> None:
        self.closes += 1


class TypingEngine(RuleEngine):
    """Extends the rule engine: takes ``pace`` seconds for a token and reports each token to the caller.

    Attributes:
        cancelled: number of generations that the caller cancelled.
        breaks_after: number of tokens of a generation after which it raises EngineError.
    """

    def __init__(self, *arguments, pace: float = 0.0, breaks_after: int | None = None, **options):
        super().__init__(*arguments, **options)
        self.pace, self.breaks_after, self.cancelled = pace, breaks_after, 0

    async def generate(self, prompt_ids, params, on_tokens=None) -> Generation:
        generation = await super().generate(prompt_ids, params)
        done = False
        try:
            for place, token in enumerate(generation.token_ids):
                if place == self.breaks_after:
                    raise EngineError("rule: the engine broke at secret-host:1234")
                await asyncio.sleep(self.pace)
                if on_tokens:
                    on_tokens([token])
            done = True
        finally:
            self.cancelled += not done
        return generation


def rule_models(
    letters: Codec, rule: Callable[[str, int], str], kind=RuleEngine, **options
) -> tuple[Planner, Reasoner]:
    """Returns a planner that samples labels and a reasoner that answers by ``rule``; ``kind`` is its engine's class."""
    planner = Planner("rule planner", None, letters, RuleEngine(letters, rule))
    return planner, Reasoner("rule reasoner", None, letters, kind(letters, rule, **options))
