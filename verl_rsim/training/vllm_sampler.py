"""Requests an episode's tokens from verl's servers during the training rollout."""

from __future__ import annotations

import math
import sys
import time
from typing import Any
from uuid import uuid4

from verl_rsim.core.episode import Generation, Request
from verl_rsim.core.sampling_params import sampling_params
from verl_rsim.monitoring.watchdog.rollout_tracker import track_wait


class ServerSampler:
    """Samples one model in one episode through verl's server client; a ``Generate`` of the dialogue.

    Args:
        role: the role that the servers play.
        client: verl's client of these servers.
        sampling: sampling parameters of every request.
        seed: seed of the episode; None leaves sampling to the server.
        vocabulary: number of token ids that the model knows; None if unknown.

    Attributes:
        versions: weight versions that the servers reported with their answers.
        preempted: number of requests that vLLM preempted; -1 if it does not report them.
        seconds: time spent waiting for the server.
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
        with track_wait(f"the {self.role}'s server"):
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
        """Returns why an answer cannot come from this model, or None if it can; training on it may crash the worker."""
        known = request.allowed_ids or range(self.vocabulary or sys.maxsize)
        strange = next((i for i in output.token_ids if i not in known), None)
        if strange is not None:
            return f"has the token id {strange}, which it cannot have"
        if any(math.isnan(value) for value in output.log_probs):
            return "has log-probs that are nan: its weights may be, too"
        return None
