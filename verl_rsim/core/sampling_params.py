"""Converts a request of the dialogue into vLLM's sampling parameters, for training, evaluation and serving alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from verl_rsim.core.episode import Request


def sampling_params(request: Request, base: Mapping[str, Any], seed: str | None) -> dict[str, Any]:
    """Returns the sampling parameters of a request, by vLLM's names.

    Args:
        base: temperature, top_p and the like.
        seed: makes the request's samples repeatable; with None the server draws its own.
    """
    params = {**base, "max_tokens": request.max_tokens}
    if request.stop:
        params["stop"] = list(request.stop)
    if request.allowed_ids is not None:
        params["allowed_token_ids"] = list(request.allowed_ids)
    if seed is not None:
        params["seed"] = request_seed(seed, request)
    return params


def request_seed(seed: str, request: Request) -> int:
    """Returns a 31-bit seed of one request, the same whenever and wherever the request runs."""
    text = f"{seed}/{request.turn}/{request.prompt_ids}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
