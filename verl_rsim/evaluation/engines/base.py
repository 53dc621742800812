"""Defines the interface of engines that continue token ids, and the dialogue's sampler over such an engine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.episode import Generation, Request
from verl_rsim.core.sampling_params import sampling_params

TokenCallback = Callable[[Sequence[int]], None]
"""Receives tokens as they are sampled, in order; an exception that it raises ends the generation."""


class Engine(ABC):
    """Continues token ids exactly: takes the prompt as ids and returns the ids it sampled.

    Attributes:
        name: folder, id or URL of the model, for messages.
        context: most tokens of prompt and continuation together.
    """

    name: str
    context: int

    @abstractmethod
    async def start(self) -> None:
        """Loads the model or opens the connections; does nothing if that is done.

        Raises:
            EngineError: the model cannot be loaded or reached.
        """

    @abstractmethod
    async def generate(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], on_tokens: TokenCallback | None = None
    ) -> Generation:
        """Continues ``prompt_ids``; cancelling the call ends the generation.

        Args:
            prompt_ids: token ids to continue.
            params: sampling parameters by vLLM's names; see :func:`verl_rsim.core.sampling_params.sampling_params`.
            on_tokens: receives tokens as they are sampled.

        Raises:
            EngineError: the engine failed, or returned no tokens.
        """

    @abstractmethod
    async def check_health(self) -> None:
        """Raises EngineError if the engine is known not to answer; takes seconds at most."""

    @abstractmethod
    async def close(self) -> None:
        """Frees what :meth:`start` took; the engine can be started again."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one model; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0

    def params(self) -> dict[str, Any]:
        """Returns the parameters by vLLM's names."""
        # All are set: a server takes missing ones from the model's generation config, which differs from training.
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }


@dataclass
class EngineSampler:
    """Generates one model's part of one episode with an engine, and counts tokens and seconds.

    It is the dialogue's ``Generate``.

    Attributes:
        engine: continues the model's token ids.
        sampling: sampling parameters.
        seed: makes the samples repeatable; None draws new ones each time.
        on_tokens: receives tokens as they are sampled.
        read: tokens that the model has read so far and did not generate: prompt and inserted text.
        tokens: tokens generated so far.
        seconds: seconds spent waiting for the engine, including its queue.
    """

    engine: Engine
    sampling: Sampling
    seed: str | None = None
    on_tokens: TokenCallback | None = None
    read: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    async def __call__(self, request: Request) -> Generation:
        began = time.monotonic()
        params = sampling_params(request, self.sampling.params(), self.seed)
        self.read = len(request.prompt_ids) - self.tokens
        generation = await self.engine.generate(request.prompt_ids, params, on_tokens=self.on_tokens)
        self.seconds += time.monotonic() - began
        self.tokens += len(generation.token_ids)
        return generation
