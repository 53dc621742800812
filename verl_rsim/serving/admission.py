"""What the server allows, and the gate that keeps it to so many episodes at once."""

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

API_KEY = "RSIM_SERVE_API_KEY"


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Bounds of the server.

    Attributes:
        concurrency: episodes played at once.
        queue: episodes that may wait; beyond that requests are turned away.
        max_n: answers of one request.
        max_body: of a request, in bytes.
        timeout: of a request, its waiting included, in seconds.
        drain: seconds that requests under way may take once the server is told to stop.
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
            if not 0 < getattr(self, key) < math.inf:
                raise ConfigError(key, getattr(self, key), "must be a number of seconds > 0")
        if self.max_n > self.concurrency + self.queue:
            raise ConfigError("max_n", self.max_n, "must be <= concurrency + queue, or it can never be served")


class Gate:
    """Lets ``concurrency`` episodes play and ``queue`` wait."""

    def __init__(self, limits: ServeLimits):
        self.room = limits.concurrency + limits.queue
        self.playing = asyncio.Semaphore(limits.concurrency)
        self.admitted = 0

    @contextmanager
    def admit(self, episodes: int) -> Iterator[None]:
        """Take in the episodes of a request.

        Raises:
            ApiError: 429, there is no room.
        """
        if self.admitted + episodes > self.room:
            message = f"{self.admitted} episodes are under way or wait, and {self.room} may; try again later."
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        self.admitted += episodes
        try:
            yield
        finally:
            self.admitted -= episodes


def read_api_key(file: Path | None) -> str | None:
    """The key clients must send, from a file or from ``RSIM_SERVE_API_KEY``, which is removed: engines need not see it.

    Raises:
        ConfigError: the file cannot be read, or the key is empty or holds characters that no header can.
    """
    source, key = API_KEY, os.environ.pop(API_KEY, None)
    if file is not None:
        source = "api_key_file"
        try:
            key = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(source, str(file), f"cannot be read ({error})") from error
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(source, "...", "must be one word of ASCII characters; unset it to serve without a key")
    return key
