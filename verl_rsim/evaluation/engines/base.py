"""What plays a model outside training: an engine that continues token ids, and the dialogue's sampler over it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.dialogue import Generation, Request
from verl_rsim.core.sampling_params import sampling_params

Watch = Callable[[Sequence[int]], None]
"""Is told tokens as they are sampled, in order; what it raises ends the generation."""


class Engine(ABC):
    """Continues token ids exactly: takes the prompt as ids and returns the ids it sampled.

    Attributes:
        name: where the model comes from, for people.
        context: tokens of prompt and continuation together.
    """

    name: str
    context: int

    @abstractmethod
    async def start(self) -> None:
        """Load the model or open the connections; a no-op when that is done.

        Raises:
            EngineError: it cannot.
        """

    @abstractmethod
    async def generate(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], watch: Watch | None = None
    ) -> Generation:
        """Continue ``prompt_ids``; cancelling the call ends the work.

        Args:
            params: by vLLM's names; see :func:`verl_rsim.core.sampling_params.sampling_params`.
            watch: is told the tokens as they come; an engine that cannot do so leaves it out.

        Raises:
            EngineError: no answer, or none that can be used.
        """

    @abstractmethod
    async def check_health(self) -> None:
        """Raise EngineError if the engine is known not to answer; takes seconds at most."""

    @abstractmethod
    async def close(self) -> None:
        """Free what :meth:`start` took; the engine can be started again."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0

    def params(self) -> dict[str, Any]:
        """By vLLM's names. All are named, since a server fills in what is not from the model's own defaults."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }


@dataclass
class EngineSampler:
    """The dialogue's ``Generate`` over an engine, for one episode; counts what it costs.

    Attributes:
        seed: makes the samples repeatable; None: a new draw each time.
        watch: is told the tokens as they come.
        read: tokens the model was given so far: the prompt and what was put between its own tokens.
        tokens: generated so far.
        seconds: of waiting for the engine, its queue included.
    """

    engine: Engine
    sampling: Sampling
    seed: str | None = None
    watch: Watch | None = None
    read: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    async def __call__(self, request: Request) -> Generation:
        began = time.monotonic()
        params = sampling_params(request, self.sampling.params(), self.seed)
        self.read = len(request.prompt_ids) - self.tokens
        generation = await self.engine.generate(request.prompt_ids, params, watch=self.watch)
        self.seconds += time.monotonic() - began
        self.tokens += len(generation.token_ids)
        return generation
