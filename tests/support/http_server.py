"""Serves a pair of models in tests: runs the application under uvicorn, on a loopback port, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from verl_rsim.serving.middleware import LOOPBACK
from verl_rsim.serving.server import Server, bind
from verl_rsim.serving.service import Service


@contextmanager
def serving(service: Service, key: str | None = None) -> Iterator[str]:
    """Serves while the context is open; yields the URL."""
    with bind("127.0.0.1", 0) as taken:
        server = Server(service, key, LOOPBACK)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def until(condition, seconds: float = 10.0) -> None:
    """Waits until the condition holds; fails the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
