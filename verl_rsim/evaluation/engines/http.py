"""A model behind an OpenAI-compatible endpoint, continued by token ids through ``/v1/completions``.

The dialogue hands over ids and needs the sampled ids back; text encoded again is not always the same ids. vLLM's own
server does both. An endpoint that does not is refused at the first contact: there is no inexact mode, and chat
completions, which hide the prompt's ids, are not used. ``RSIM_API_KEY`` is sent as bearer token if it is set.
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

from verl_rsim.core.dialogue import Generation
from verl_rsim.core.prompts import Codec
from verl_rsim.evaluation.engines.base import Engine, Watch
from verl_rsim.evaluation.engines.http_stream import read_stream
from verl_rsim.utils.errors import EngineBusy, EngineError, EngineTimeout

API_KEY = "RSIM_API_KEY"
CONNECT_SECONDS = 5.0
READ_SECONDS = 600.0
ATTEMPTS = 4
"""Of a request whose connection fails or that the server turns away (429, 502, 503, 504), a second or so apart."""
_TURNED_AWAY = (429, 502, 503, 504)
_PROBE = "What is 12 + 30?\n\nLet me check this: 42"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What an endpoint says of its model.

    Attributes:
        id: the name to ask for it.
        root: the folder or id it was loaded from, where the endpoint says so.
        context: tokens it takes, where the endpoint says so.
    """

    id: str
    root: str | None
    context: int | None


def is_url(source: str) -> bool:
    """Whether a model is given as an endpoint."""
    return source.startswith(("http://", "https://"))


class HttpEngine(Engine):
    """An endpoint's model.

    Args:
        url: of the server, with or without ``/v1``.
        transport: of the HTTP client, for tests.

    Raises:
        EngineError: the URL is none, or carries a password.
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
            raise EngineError(f"{url!r} is no URL of a server: write http://host:port")
        if parts.username or parts.password:
            raise EngineError(f"the URL of {parts.hostname} carries a password: set {API_KEY} instead")
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
            raise EngineError(f"{self.name}: /v1/models lists no model; it is no OpenAI-compatible server")
        return ServedModel(cards[0]["id"], cards[0].get("root"), cards[0].get("max_model_len"))

    def check(self, codec: Codec, labels: bool = True) -> None:
        """Make sure the endpoint continues token ids of this codec exactly and, if it can be asked, has the same chat
        template.

        Args:
            labels: also that it samples among the tokens allowed, as a planner's must.

        Raises:
            EngineError: it does not.
        """
        ids = codec.encode(_PROBE)
        params: dict[str, Any] = {"temperature": 0, "max_tokens": 1, "add_special_tokens": False}
        if labels:
            params["allowed_token_ids"] = [ids[0]]
        for prompt in (_PROBE, list(ids)):
            choice = _choice(self._call("POST", "completions", self._body(prompt, params)), self.name)
            if not choice.get("token_ids"):
                fix = "serve the model with vLLM's `vllm serve`"
                raise EngineError(f"{self.name}: returns no token ids, so no episode would be exact; {fix}")
            if labels and tuple(choice["token_ids"]) != (ids[0],):
                raise EngineError(f"{self.name}: ignores allowed_token_ids; serve the model with `vllm serve`")
            if tuple(choice.get("prompt_token_ids") or ids) != ids:
                fix = "name the tokenizer the server uses"
                raise EngineError(f"{self.name}: encodes text otherwise than the tokenizer given here; {fix}")
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
            raise EngineError(f"{self.name}: its chat template is not that of the tokenizer given here; {fix}")

    async def start(self) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(**self._options, limits=self._limits)

    async def generate(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], watch: Watch | None = None
    ) -> Generation:
        await self.start()
        body = self._body(list(prompt_ids), params)
        told = 0

        def tell(ids: Sequence[int]) -> None:
            nonlocal told
            told += len(ids)
            if watch:
                watch(ids)

        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                choice = await (self._streamed(body, tell) if watch else self._whole(body))
                return _generation(choice, self.name)
            except EngineBusy:
                if last:
                    raise
            except httpx.TransportError as error:
                if last or told or isinstance(error, httpx.ReadTimeout):
                    raise _unreachable(self.name, error) from error
            await asyncio.sleep(0.5 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        response = await self._client.post("completions", json=body)  # type: ignore[union-attr]
        return _choice(_content(response, self.name), self.name)

    async def _streamed(self, body: dict[str, Any], watch: Watch) -> dict[str, Any]:
        body = {**body, "stream": True}
        async with self._client.stream("POST", "completions", json=body) as response:  # type: ignore[union-attr]
            if response.status_code >= 400:
                await response.aread()
                _content(response, self.name)  # raises
            return await read_stream(response, self.name, watch)

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
        return {**params, "model": self.model.id, "prompt": prompt, "logprobs": 0, "return_token_ids": True}

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            with httpx.Client(**self._options) as client:
                return _content(client.request(method, path, json=body), self.name)
        except httpx.TransportError as error:
            raise _unreachable(self.name, error, "; check the URL and that the server runs") from error


def _unreachable(name: str, error: httpx.TransportError, fix: str = "") -> EngineError:
    what = f"({type(error).__name__}: {error}){fix}"
    if isinstance(error, httpx.TimeoutException):
        return EngineTimeout(f"{name}: no answer in time {what}")
    return EngineError(f"{name}: cannot be reached {what}")


def _content(response: httpx.Response, name: str) -> dict[str, Any]:
    if response.status_code in _TURNED_AWAY:
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
