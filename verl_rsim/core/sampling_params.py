"""A request of the dialogue in the words of vLLM; the same for training, evaluation and serving."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from verl_rsim.core.dialogue import Request


def sampling_params(request: Request, base: Mapping[str, Any], seed: str | None) -> dict[str, Any]:
    """Sampling parameters, by vLLM's names.

    Args:
        base: temperature, top_p and the like.
        seed: makes the request's samples repeatable; None leaves them to the server.
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
    """A seed for one request that does not depend on when or where it runs: 31 bits."""
    text = f"{seed}/{request.turn}/{request.prompt_ids}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
