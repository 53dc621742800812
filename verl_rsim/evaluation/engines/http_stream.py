"""Reads a streamed completion: server-sent events, each with the token ids sampled since the one before."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from verl_rsim.evaluation.engines.base import TokenCallback
from verl_rsim.utils.errors import EngineError


async def read_stream(response: httpx.Response, name: str, on_tokens: TokenCallback) -> dict[str, Any]:
    """Reads a streamed completion to its end.

    Args:
        response: the open response.
        name: the endpoint, for error messages.
        on_tokens: receives tokens as they arrive.

    Returns:
        The completion as the endpoint would have sent it without streaming: ``token_ids`` and ``logprobs``.

    Raises:
        EngineError: the endpoint reports an error, sends invalid JSON, or closes the stream early.
    """
    ids: list[int] = []
    log_probs: list[float] = []
    async for data in _events(response):
        if data == b"[DONE]":
            is_complete = len(log_probs) == len(ids)
            return {"token_ids": ids, "logprobs": {"token_logprobs": log_probs} if is_complete else None}
        choice = _choice(data, name)
        new = choice.get("token_ids") or []
        ids += new
        log_probs += (choice.get("logprobs") or {}).get("token_logprobs") or []
        if new:
            on_tokens(new)
    raise EngineError(f"{name}: the stream ended before the completion did")


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yields the data of each event."""
    # Not response.aiter_lines(): it also splits at Unicode's line separators, which may occur in JSON.
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
        raise EngineError(f"{name}: streamed invalid JSON: {data[:100]!r}") from error
    if not isinstance(chunk, dict) or chunk.get("error"):
        raise EngineError(f"{name}: failed in mid-stream: {data[:300]!r}")
    choices = chunk.get("choices") or [{}]
    return choices[0]
