"""Generates in several requests what must not end where a server's stop string ended it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from verl_rsim.core.episode import Generate, Generation, Request


async def generate_while(
    continues: Callable[[Generation, Generation, Request], bool], generate: Generate, request: Request
) -> tuple[Generation, Generation, Request]:
    """Continues a generation, each time with all tokens so far, until ``continues`` is False or no token is left.

    Args:
        continues: gets the whole generation, its last part, and the request of that part.
        generate: samples the model.
        request: the first request; its ``max_tokens`` is the limit of all parts together.

    Returns:
        The whole generation with the log-probs of its parts, the last part, and the request of that part.
    """
    part = whole = await generate(request)
    while continues(whole, part, request) and request.max_tokens > len(part.token_ids):
        prompt_ids, left = request.prompt_ids + part.token_ids, request.max_tokens - len(part.token_ids)
        request = dataclasses.replace(request, prompt_ids=prompt_ids, max_tokens=left)
        part = await generate(request)
        whole = Generation(whole.token_ids + part.token_ids, whole.log_probs + part.log_probs)
    return whole, part, request
