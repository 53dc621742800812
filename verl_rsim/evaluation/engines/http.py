"""Continues token ids with a model behind an OpenAI-compatible endpoint, through ``/v1/completions``.

The dialogue sends token ids and needs the sampled ids back, since encoding text again does not always give the same
ids. vLLM's own server does both. An endpoint that does not is refused at the first contact; there is no inexact mode.
Chat completions are not used because they hide the prompt's ids. ``RSIM_API_KEY`` is sent as bearer token if it is set.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from verl_rsim.core.episode import Generation
from verl_rsim.core.prompts import Codec
from verl_rsim.evaluation.engines.base import Engine, TokenCallback
from verl_rsim.evaluation.engines.http_stream import read_stream
from verl_rsim.utils.errors import EngineBusy, EngineError, EngineTimeout

API_KEY = "RSIM_API_KEY"
CONNECT_SECONDS = 5.0
READ_SECONDS = 600.0
ATTEMPTS = 4
"""Attempts at a request whose connection fails or that the server turns away (429, 502, 503, 504)."""
_BUSY_STATUSES = (429, 502, 503, 504)
_PROBE = "What is 12 + 30?\n\nLet me check this: 42"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Describes the model of an endpoint, as ``/v1/models`` lists it.

    Attributes:
        id: name of the model in requests.
        root: folder or id that the model was loaded from; None if not listed.
        context: most tokens of prompt and continuation together; None if not listed.
    """

    id: str
    root: str | None
    context: int | None


def is_url(source: str) -> bool:
    """Returns True if a model is named by the URL of an endpoint."""
    return source.startswith(("http://", "https://"))


class HttpEngine(Engine):
    """Continues token ids with the model of an endpoint.

    Args:
        url: URL of the server, with or without ``/v1``.
        connect_seconds: timeout of a connection.
        read_seconds: timeout of a response.
        transport: replaces the HTTP client's transport in tests.

    Raises:
        EngineError: the URL is invalid or contains a password, or the server cannot be reached or lists no model.
    """

    def __init__(
        self,
        url: str,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
    ):
        parts = urlsplit(url)
        if not parts.hostname:
            raise EngineError(f"{url!r} is no URL of a server; write http://host:port")
        if parts.username or parts.password:
            raise EngineError(f"the URL of {parts.hostname} carries a password; set {API_KEY} instead")
        self.name = url.rstrip("/").removesuffix("/v1")
        key = os.environ.get(API_KEY)
        self._options: dict[str, Any] = {
            "base_url": self.name + "/v1/",
            "timeout": httpx.Timeout(read_seconds, connect=connect_seconds),
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "transport": transport,
        }
        self._limits = httpx.Limits(max_connections=None)
        self._client: httpx.AsyncClient | None = None
        self.model = self._ask_for_model()
        self.context = self.model.context or 0

    def _ask_for_model(self) -> ServedModel:
        cards = self._call("GET", "models").get("data")
        if not isinstance(cards, list) or not cards or "id" not in cards[0]:
            raise EngineError(f"{self.name}: /v1/models lists no model; name the URL of an OpenAI-compatible server")
        return ServedModel(cards[0]["id"], cards[0].get("root"), cards[0].get("max_model_len"))

    def check(self, codec: Codec, labels: bool = True) -> None:
        """Checks with two short requests that the endpoint continues this codec's token ids exactly.

        If the endpoint has ``/tokenize``, its chat template is compared with the codec's as well.

        Args:
            codec: tokenizer and chat template that the model is played with.
            labels: also check that the endpoint samples among allowed tokens only, as a planner needs.

        Raises:
            EngineError: the endpoint returns no token ids, ignores ``allowed_token_ids``, or encodes text differently.
        """
        ids = codec.encode(_PROBE)
        params: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "add_special_tokens": False}
        if labels:
            params["allowed_token_ids"] = [ids[0]]
        # The text shows whether the server encodes as the codec does, the ids whether it takes and returns ids.
        for prompt in (_PROBE, list(ids)):
            choice = _choice(self._call("POST", "completions", self._body(prompt, params)), self.name)
            if not choice.get("token_ids"):
                fix = "serve the model with vLLM's `vllm serve`"
                raise EngineError(f"{self.name}: returns no token ids, so no episode would be exact; {fix}")
            if labels and tuple(choice["token_ids"]) != (ids[0],):
                raise EngineError(f"{self.name}: ignores allowed_token_ids; serve the model with `vllm serve`")
            if tuple(choice.get("prompt_token_ids") or ids) != ids:
                fix = "name the tokenizer the server uses"
                raise EngineError(f"{self.name}: encodes text differently from the tokenizer given here; {fix}")
        self._check_template(codec)

    def _check_template(self, codec: Codec) -> None:
        chat = [{"role": "user", "content": _PROBE}]
        body = {"model": self.model.id, "messages": chat, "chat_template_kwargs": dict(codec.template_kwargs)}
        try:
            with httpx.Client(**self._options) as client:
                response = client.post(f"{self.name}/tokenize", json=body)
        except httpx.TransportError as error:
            raise _unreachable(self.name, error) from error
        if response.status_code == 200 and tuple(_content(response, self.name).get("tokens", ())) != codec.chat(chat):
            fix = "name the tokenizer the server uses, with the chat template it was started with"
            raise EngineError(f"{self.name}: its chat template differs from that of the tokenizer given here; {fix}")

    async def start(self) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(**self._options, limits=self._limits)

    async def generate(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], on_tokens: TokenCallback | None = None
    ) -> Generation:
        await self.start()
        body = self._body(list(prompt_ids), params)
        delivered = 0

        def deliver(ids: Sequence[int]) -> None:
            nonlocal delivered
            delivered += len(ids)
            if on_tokens:
                on_tokens(ids)

        for attempt in range(ATTEMPTS):
            is_last = attempt == ATTEMPTS - 1
            try:
                choice = await (self._streamed(body, deliver) if on_tokens else self._whole(body))
                return _generation(choice, self.name)
            except EngineBusy:
                if is_last:
                    raise
            except httpx.TransportError as error:
                # Delivered tokens cannot be taken back, and a slow server would only be loaded twice by a second try.
                if is_last or delivered or isinstance(error, httpx.ReadTimeout):
                    raise _unreachable(self.name, error) from error
            await asyncio.sleep(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._client.post("completions", json=body)  # type: ignore[union-attr]
        return _choice(_content(response, self.name), self.name)

    async def _streamed(self, body: dict[str, Any], on_tokens: TokenCallback) -> dict[str, Any]:
        body = {**body, "stream": True}
        async with self._client.stream("POST", "completions", json=body) as response:  # type: ignore[union-attr]
            if response.status_code >= 400:
                await response.aread()
                _content(response, self.name)  # raises
            return await read_stream(response, self.name, on_tokens)

    async def check_health(self) -> None:
        await self.start()
        try:
            response = await self._client.get("models", timeout=CONNECT_SECONDS)  # type: ignore[union-attr]
        except httpx.TransportError as error:
            raise _unreachable(self.name, error) from error
        _content(response, self.name)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _body(self, prompt: str | list[int], params: Mapping[str, Any]) -> dict[str, Any]:
        # logprobs=0 asks for the sampled token's log-prob alone.
        return {**params, "model": self.model.id, "prompt": prompt, "logprobs": 0, "return_token_ids": True}

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            with httpx.Client(**self._options) as client:
                return _content(client.request(method, path, json=body), self.name)
        except httpx.TransportError as error:
            raise _unreachable(self.name, error, "; check the URL and that the server runs") from error


def _unreachable(name: str, error: httpx.TransportError, fix: str = "") -> EngineError:
    details = f"({type(error).__name__}: {error}){fix}"
    if isinstance(error, httpx.TimeoutException):
        return EngineTimeout(f"{name}: no answer in time {details}")
    return EngineError(f"{name}: cannot be reached {details}")


def _content(response: httpx.Response, name: str) -> dict[str, Any]:
    if response.status_code in _BUSY_STATUSES:
        raise EngineBusy(f"{name}: answered {response.status_code}: {response.text[:300]!r}")
    if response.status_code == 404:
        fix = "it has no /v1/completions or /v1/models; chat completions cannot continue token ids exactly"
        raise EngineError(f"{name}: answered 404: {fix}")
    if response.status_code >= 400:
        fix = f"; set {API_KEY}" if response.status_code in (401, 403) else ""
        raise EngineError(f"{name}: answered {response.status_code}: {response.text[:300]!r}{fix}")
    try:
        content = response.json()
    except json.JSONDecodeError as error:
        raise EngineError(f"{name}: answered no JSON: {response.text[:100]!r}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{name}: answered no JSON object: {response.text[:100]!r}")
    return content


def _choice(content: dict[str, Any], name: str) -> dict[str, Any]:
    choices = content.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise EngineError(f"{name}: answered without a completion: {str(content)[:300]}")
    return choices[0]


def _generation(choice: dict[str, Any], name: str) -> Generation:
    ids = choice.get("token_ids")
    if not ids:
        raise EngineError(f"{name}: answered a request without token ids")
    log_probs = (choice.get("logprobs") or {}).get("token_logprobs") or [math.nan] * len(ids)
    return Generation(tuple(ids), tuple(log_probs))
