"""Admission control of the server: its limits, the bounded queue of episodes, and the API key."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.serving.errors import ApiError
from verl_rsim.utils.errors import ConfigError

API_KEY_VARIABLE = "RSIM_SERVE_API_KEY"


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Bounds the work and the size of requests that the server accepts.

    Attributes:
        concurrency: episodes played at once.
        queue: episodes that may wait; requests beyond that are rejected with status 429.
        max_n: answers per request.
        max_body: bytes of a request's body.
        timeout: seconds that a request may take, waiting included.
        drain: seconds that running requests get after the server has received a shutdown signal.

    Raises:
        ConfigError: a limit is out of range.
    """

    concurrency: int = 32
    queue: int = 256
    max_n: int = 8
    max_body: int = 1 << 18
    timeout: float = 300.0
    drain: float = 30.0

    def __post_init__(self):
        for key, least in (("concurrency", 1), ("queue", 0), ("max_n", 1), ("max_body", 1024)):
            if getattr(self, key) < least:
                raise ConfigError(key, getattr(self, key), f"must be >= {least}")
        for key in ("timeout", "drain"):
            # Written so that NaN fails, too: every comparison with it is False.
            if not 0 < getattr(self, key) < math.inf:
                raise ConfigError(key, getattr(self, key), "must be a number of seconds > 0")
        if self.max_n > self.concurrency + self.queue:
            raise ConfigError("max_n", self.max_n, "must be <= concurrency + queue, or it can never be served")


class AdmissionControl:
    """Admits episodes up to ``concurrency + queue`` and lets ``concurrency`` of them play at once.

    Attributes:
        capacity: episodes that may play or wait.
        slots: semaphore that an episode holds while it plays.
        active: episodes that play or wait now.
    """

    def __init__(self, limits: ServeLimits):
        self.capacity = limits.concurrency + limits.queue
        self.slots = asyncio.Semaphore(limits.concurrency)
        self.active = 0

    @contextmanager
    def admit(self, episodes: int) -> Iterator[None]:
        """Counts a request's episodes as active until the block ends.

        A request is admitted with all of its episodes or with none: otherwise some would hold slots while the rest of
        the same request could never start.

        Raises:
            ApiError: 429, the queue is full.
        """
        if self.active + episodes > self.capacity:
            message = f"The queue is full: {self.active} of {self.capacity} episodes are active; try again later."
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        self.active += episodes
        try:
            yield
        finally:
            self.active -= episodes


def read_api_key(file: Path | None) -> str | None:
    """Returns the API key that clients must send, or None if none is set.

    The key comes from ``file``, else from ``RSIM_SERVE_API_KEY``.

    Raises:
        ConfigError: the file cannot be read, or the key is empty or contains characters that no header can carry.
    """
    # Removed from the environment in any case: the engines' processes inherit it and do not need the key.
    source, key = API_KEY_VARIABLE, os.environ.pop(API_KEY_VARIABLE, None)
    if file is not None:
        source = "api_key_file"
        try:
            key = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(source, str(file), f"cannot be read ({error})") from error
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(source, "...", "must be one word of ASCII characters; unset it to serve without a key")
    return key
