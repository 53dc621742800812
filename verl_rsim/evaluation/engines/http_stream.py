"""Reading a completion that an endpoint streams: server-sent events, each with the token ids sampled since the last."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from verl_rsim.evaluation.engines.base import Watch
from verl_rsim.utils.errors import EngineError


async def read_stream(response: httpx.Response, name: str, watch: Watch) -> dict[str, Any]:
    """Read a streamed completion to its end.

    Returns:
        The completion as the endpoint would have answered it whole: ``token_ids`` and ``logprobs``.

    Raises:
        EngineError: the endpoint reports an error, sends what cannot be read, or ends before the completion does.
    """
    ids: list[int] = []
    log_probs: list[float] = []
    async for data in _events(response):
        if data == b"[DONE]":
            known = {"token_logprobs": log_probs} if len(log_probs) == len(ids) else None
            return {"token_ids": ids, "logprobs": known}
        choice = _choice(data, name)
        new = choice.get("token_ids") or []
        ids += new
        log_probs += (choice.get("logprobs") or {}).get("token_logprobs") or []
        if new:
            watch(new)
    raise EngineError(f"{name}: the stream ended before the completion did")


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of each event; httpx's own lines also end at Unicode's line separators, which JSON may hold."""
    buffer = b""
    async for piece in response.aiter_bytes():
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def _choice(data: bytes, name: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise EngineError(f"{name}: streamed what is no JSON: {data[:100]!r}") from error
    if not isinstance(chunk, dict) or chunk.get("error"):
        raise EngineError(f"{name}: failed in mid-stream: {data[:300]!r}")
    choices = chunk.get("choices") or [{}]
    return choices[0]
