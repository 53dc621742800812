"""How an episode of the training rollout asks a verl server for tokens."""

from __future__ import annotations

import math
import sys
import time
from typing import Any
from uuid import uuid4

from verl_rsim.core.dialogue import Generation, Request
from verl_rsim.core.sampling_params import sampling_params
from verl_rsim.monitoring.watchdog.rollout_tracker import waiting_for


class ServerSampler:
    """Samples one model of one episode through its verl server client; the ``Generate`` of the dialogue.

    Args:
        role: whose servers they are.
        client: verl's.
        sampling: parameters of every request.
        seed: of the episode, if it has one.
        vocabulary: token ids the model knows; None: any.

    Attributes:
        versions: the weight versions the servers answered with.
        preempted: requests vLLM preempted, -1 when it does not say.
        seconds: spent waiting for the server.
    """

    def __init__(
        self, role: str, client: Any, sampling: dict[str, Any], seed: str | None, vocabulary: int | None = None
    ):
        self.role, self.client, self.sampling, self.seed, self.vocabulary = role, client, sampling, seed, vocabulary
        self.session = uuid4().hex  # sticky: all turns of an episode reach the server that holds their prefix
        self.versions: list[int] = []
        self.preempted = -1
        self.seconds = 0.0

    async def __call__(self, request: Request) -> Generation:
        with waiting_for(f"the {self.role}'s server"):
            return await self._generate(request)

    async def _generate(self, request: Request) -> Generation:
        sampling = sampling_params(request, {**self.sampling, "logprobs": True}, self.seed)
        started = time.perf_counter()
        output = await self.client.generate(
            request_id=self.session, prompt_ids=list(request.prompt_ids), sampling_params=sampling
        )
        self.seconds += time.perf_counter() - started
        if output.stop_reason == "aborted" or not output.token_ids:
            raise RuntimeError(f"the server ended turn {request.turn} without tokens ({output.stop_reason})")
        if problem := self._problem(output, request):
            raise RuntimeError(f"the server's turn {request.turn} {problem}")
        if (version := output.extra_fields.get("global_steps")) is not None:
            self.versions.append(version)
        if output.num_preempted is not None:
            self.preempted = max(self.preempted, 0) + output.num_preempted
        return Generation(tuple(output.token_ids), tuple(output.log_probs))

    def _problem(self, output: Any, request: Request) -> str | None:
        """Why an answer cannot be this model's: it would train the policy on nonsense, or crash its worker."""
        known = request.allowed_ids or range(self.vocabulary or sys.maxsize)
        strange = next((i for i in output.token_ids if i not in known), None)
        if strange is not None:
            return f"has the token id {strange}, which it cannot have"
        if any(math.isnan(value) for value in output.log_probs):
            return "has log-probs that are nan: its weights may be, too"
        return None
