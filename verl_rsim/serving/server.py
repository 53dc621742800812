"""Runs the server: binds the port, loads the models, and serves until a shutdown signal."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import socket
from collections.abc import Collection

import uvicorn
from rich.console import Console

from verl_rsim.serving.app import FLUSH_SECONDS, create_app
from verl_rsim.serving.middleware import LOOPBACK
from verl_rsim.serving.service import Service
from verl_rsim.utils.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to this address and not listening yet; port 0 takes any free one.

    Raises:
        ConfigError: the host name is no address of this machine, or the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError) as error:
        raise ConfigError("host", host, f"is no address of this machine ({error})") from error
    bound = socket.socket(family, kind, protocol)
    # Lets a restarted server bind at once, while connections of the one before it are still in TIME_WAIT.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        fix = f"cannot be used on {host} ({error}); choose another, or 0 for any free one"
        raise ConfigError("port", port, fix) from error
    return bound


def run(service: Service, listener: socket.socket, key: str | None, console: Console) -> None:
    """Loads the models and serves until SIGINT or SIGTERM, then frees the models' memory.

    Raises:
        EngineError: a model cannot be loaded.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("verl_rsim.serving").setLevel(logging.INFO)
    asyncio.run(_run(service, listener, key, console))


class Server(uvicorn.Server):
    """Extends uvicorn's server: aborts the running requests ``drain`` seconds after a shutdown signal.

    Args:
        service: started models and their limits.
        key, hosts: see :class:`verl_rsim.serving.middleware.AccessControl`.
    """

    def __init__(self, service: Service, key: str | None = None, hosts: Collection[str] | None = None):
        self.service = service
        super().__init__(
            uvicorn.Config(
                create_app(service, key, hosts),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                # Longer than drain: aborted requests must still be able to send their error.
                timeout_graceful_shutdown=math.ceil(service.limits.drain) + FLUSH_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops listening, finishes or aborts the running requests, and closes."""
        timer = asyncio.get_running_loop().call_later(self.service.limits.drain, self.service.abort_requests)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


async def _run(service: Service, listener: socket.socket, key: str | None, console: Console) -> None:
    host, port = listener.getsockname()[:2]
    hosts = LOOPBACK | {host} if ipaddress.ip_address(host).is_loopback else None
    try:
        console.print("Loading the models", highlight=False)
        await service.start()
        url_host = f"[{host}]" if ":" in host else host
        url = f"http://{url_host}:{port}"
        console.print(f"Serving {service.name!r} at {url} (page) and {url}/v1 (OpenAI's API)", highlight=False)
        if key is None and hosts is None:
            console.print("Anyone who reaches this address may use it: set RSIM_SERVE_API_KEY", style="yellow")
        await Server(service, key, hosts).serve(sockets=[listener])
    finally:
        await service.close()
