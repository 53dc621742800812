"""The served pair of models, their rules, and the checks of a request against both."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jinja2 import TemplateError

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.rules import Rules
from verl_rsim.evaluation.models import Planner, Reasoner
from verl_rsim.serving.admission import AdmissionControl, ServeLimits
from verl_rsim.serving.errors import ApiError
from verl_rsim.serving.metrics import Metrics
from verl_rsim.serving.protocol import ChatRequest


@dataclass
class Service:
    """Holds everything that the server's requests share.

    Attributes:
        planner, reasoner: the two models.
        rules: bounds of an episode.
        limits: bounds of the server.
        name: the model's name for clients.
        created: Unix time of the start, in seconds.
        admission: admission control of episodes.
        abort_callbacks: one function per running request, which ends it with an error.
        metrics: Prometheus metrics.
        dialogue: plays episodes as in training and evaluation.

    Raises:
        ConfigError: a model's context is too short for the rules, or the planner has no strategy labels.
    """

    planner: Planner
    reasoner: Reasoner
    rules: Rules = field(default_factory=Rules)
    limits: ServeLimits = field(default_factory=ServeLimits)
    name: str = "rsim"

    def __post_init__(self) -> None:
        self.created = int(time.time())
        self.admission = AdmissionControl(self.limits)
        self.abort_callbacks: set[Callable[[ApiError], None]] = set()
        self.metrics = Metrics(self.admission)
        planner, reasoner = self.planner, self.reasoner
        self.dialogue: Dialogue = self.rules.dialogue(
            planner.codec, planner.engine.context, reasoner.codec, reasoner.engine.context
        )

    async def start(self) -> None:
        """Loads both models, one after the other.

        Raises:
            EngineError: a model cannot be loaded.
        """
        for model in (self.planner, self.reasoner):
            await model.engine.start()

    async def check_health(self) -> None:
        """Raises EngineError if a model is known not to answer."""
        for model in (self.planner, self.reasoner):
            await model.engine.check_health()

    async def close(self) -> None:
        """Frees both models."""
        try:
            await self.planner.close()
        finally:
            await self.reasoner.close()

    def abort_requests(self) -> None:
        """Ends all running requests with status 503."""
        for abort in self.abort_callbacks:
            abort(ApiError(503, "The server is shutting down.", code="shutting_down"))

    def check_request(self, request: ChatRequest) -> None:
        """Checks a request against the server's limits.

        Raises:
            ApiError: the request names another model, or exceeds a limit.
        """
        if request.model is not None and request.model != self.name:
            message = f"The model {request.model[:100]!r} does not exist; this server has {self.name!r}."
            raise ApiError(404, message, param="model", code="model_not_found")
        if request.n > self.limits.max_n:
            raise ApiError(400, f"n may be at most {self.limits.max_n} here.", param="n", code="invalid_value")
        context = self.reasoner.engine.context
        if request.token_limit is not None and request.token_limit > context:
            message = f"{request.token_limit_field} may be at most {context}, the reasoner's context length."
            raise ApiError(400, message, param=request.token_limit_field, code="invalid_value")

    async def check_messages(self, request: ChatRequest) -> None:
        """Checks that both models can read the messages, before the request waits for a slot.

        Raises:
            ApiError: the messages are too long, or a chat template rejects them.
        """
        try:
            # Tokenizing a long conversation takes a while; in a thread it does not block the other requests' streams.
            planner, reasoner = await asyncio.to_thread(self.dialogue.prompts, request.chat)
        except TemplateError as error:
            message = f"The model's chat template rejects these messages: {str(error)[:200]}"
            raise ApiError(400, message, param="messages", code="invalid_value") from error
        limits = self.dialogue.limits
        if len(planner) > limits.planner_prompt or len(reasoner) > limits.reasoner_prompt:
            raise self.context_length_error()

    def context_length_error(self) -> ApiError:
        """Returns the error for messages that leave no room for an answer."""
        limits = self.dialogue.limits
        message = (
            "The messages are too long: the prompt may have "
            f"{limits.planner_prompt} tokens for the planner and {limits.reasoner_prompt} for the reasoner."
        )
        return ApiError(400, message, param="messages", code="context_length_exceeded")

    def dialogue_for(self, request: ChatRequest) -> Dialogue:
        """Returns the dialogue with the request's own token limit."""
        limits = dataclasses.replace(self.dialogue.limits, max_written=request.token_limit)
        return dataclasses.replace(self.dialogue, limits=limits)
