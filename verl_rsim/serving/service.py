"""The two models, the rules they play by, and what a request may ask of them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jinja2 import TemplateError

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.evaluation.models import Planner, Reasoner
from verl_rsim.evaluation.rules import Rules
from verl_rsim.serving.admission import Gate, ServeLimits
from verl_rsim.serving.errors import ApiError
from verl_rsim.serving.metrics import Metrics
from verl_rsim.serving.protocol import ChatRequest


@dataclass
class Service:
    """What is served.

    Attributes:
        name: the model's, for clients.
        dialogue: as in training and evaluation.

    Raises:
        ConfigError: a model takes too few tokens for the rules, or the planner has no strategy labels.
    """

    planner: Planner
    reasoner: Reasoner
    rules: Rules = field(default_factory=Rules)
    limits: ServeLimits = field(default_factory=ServeLimits)
    name: str = "rsim"

    def __post_init__(self) -> None:
        self.created = int(time.time())
        self.gate = Gate(self.limits)
        self.ends: set[Callable[[ApiError], None]] = set()  # of the requests under way
        self.metrics = Metrics(self.gate)
        planner, reasoner = self.planner, self.reasoner
        self.dialogue = self.rules.dialogue(
            planner.codec, planner.engine.context, reasoner.codec, reasoner.engine.context
        )

    async def start(self) -> None:
        """Load the models.

        Raises:
            EngineError: one cannot be loaded.
        """
        for player in (self.planner, self.reasoner):
            await player.engine.start()

    async def check_health(self) -> None:
        """Raise EngineError if a model is known not to answer."""
        for player in (self.planner, self.reasoner):
            await player.engine.check_health()

    async def close(self) -> None:
        """Free both models."""
        try:
            await self.planner.close()
        finally:
            await self.reasoner.close()

    def end_all(self) -> None:
        """End the requests under way."""
        for end in self.ends:
            end(ApiError(503, "The server is shutting down.", code="shutting_down"))

    def check(self, asked: ChatRequest) -> None:
        """Refuse what this server cannot do.

        Raises:
            ApiError: another model, or bounds beyond the server's.
        """
        if asked.model is not None and asked.model != self.name:
            message = f"The model {asked.model[:100]!r} does not exist; this server has {self.name!r}."
            raise ApiError(404, message, param="model", code="model_not_found")
        if asked.n > self.limits.max_n:
            raise ApiError(400, f"n may be at most {self.limits.max_n} here.", param="n", code="invalid_value")
        context = self.reasoner.engine.context
        if asked.max_written is not None and asked.max_written > context:
            message = f"{asked.max_name} may be at most {context}, the tokens the reasoner takes."
            raise ApiError(400, message, param=asked.max_name, code="invalid_value")

    async def check_messages(self, asked: ChatRequest) -> None:
        """Refuse what the models cannot read, before it waits for its turn, and without holding up other requests.

        Raises:
            ApiError: too long, or not as a chat template wants it.
        """
        try:
            planner, reasoner = await asyncio.to_thread(self.dialogue.prompts, asked.chat)
        except TemplateError as error:
            message = f"The model's chat template refuses these messages: {str(error)[:200]}"
            raise ApiError(400, message, param="messages", code="invalid_value") from error
        limits = self.dialogue.limits
        if len(planner) > limits.planner_prompt or len(reasoner) > limits.reasoner_prompt:
            raise self.too_long()

    def too_long(self) -> ApiError:
        """What is said to a question that leaves no room for an answer."""
        limits = self.dialogue.limits
        message = "The messages are too long: the prompt may have " + (
            f"{limits.planner_prompt} tokens for the planner and {limits.reasoner_prompt} for the reasoner."
        )
        return ApiError(400, message, param="messages", code="context_length_exceeded")

    def dialogue_for(self, asked: ChatRequest) -> Dialogue:
        """The dialogue, with the request's bound."""
        limits = dataclasses.replace(self.dialogue.limits, max_written=asked.max_written)
        return dataclasses.replace(self.dialogue, limits=limits)
