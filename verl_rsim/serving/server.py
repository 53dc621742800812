"""Running the server: take the port, load the models, serve until told to stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import socket
from collections.abc import Collection

import uvicorn
from rich.console import Console

from verl_rsim.serving.app import SLACK, create_app
from verl_rsim.serving.middleware import LOOPBACK
from verl_rsim.serving.service import Service
from verl_rsim.utils.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """A socket on this address, not listening yet; port 0 takes any free one.

    Raises:
        ConfigError: the name or port cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError) as error:
        raise ConfigError("host", host, f"is no address of this machine ({error})") from error
    taken = socket.socket(family, kind, protocol)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
    except (OSError, OverflowError) as error:
        taken.close()
        raise ConfigError("port", port, f"cannot be taken on {host} ({error}); choose another, or 0 for any") from error
    return taken


def run(service: Service, taken: socket.socket, key: str | None, console: Console) -> None:
    """Load the models and serve; returns after SIGINT or SIGTERM, with the models' memory freed.

    Raises:
        EngineError: a model cannot be loaded.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("verl_rsim.serving").setLevel(logging.INFO)
    asyncio.run(_run(service, taken, key, console))


class Server(uvicorn.Server):
    """uvicorn's server, which ends what is under way ``drain`` seconds after it was told to stop.

    Args:
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
                timeout_graceful_shutdown=math.ceil(service.limits.drain) + SLACK,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer what is under way, close."""
        alarm = asyncio.get_running_loop().call_later(self.service.limits.drain, self.service.end_all)
        try:
            await super().shutdown(sockets)
        finally:
            alarm.cancel()


async def _run(service: Service, taken: socket.socket, key: str | None, console: Console) -> None:
    host, port = taken.getsockname()[:2]
    hosts = LOOPBACK | {host} if ipaddress.ip_address(host).is_loopback else None
    try:
        console.print("Loading the models", highlight=False)
        await service.start()
        where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        console.print(f"Serving {service.name!r} at {where} (page) and {where}/v1 (OpenAI's API)", highlight=False)
        if key is None and hosts is None:
            console.print("Anyone who reaches this address may use it: set RSIM_SERVE_API_KEY", style="yellow")
        await Server(service, key, hosts).serve(sockets=[taken])
    finally:
        await service.close()
