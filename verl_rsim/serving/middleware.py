"""What every request passes before it is routed: the access log, and the checks of host and key."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Collection
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verl_rsim.serving.errors import ApiError, internal_error
from verl_rsim.serving.metrics import Metrics

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = frozenset({"/", "/health", "/page.css", "/page.js", "/report.css"})
"""Paths that need no key: they hold nothing that does."""

_log = logging.getLogger(__name__)


class AccessLog:
    """Gives each request an id and logs one line for it: no header, no query, no body."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status, started, request_id = time.monotonic(), 500, False, f"req-{uuid4().hex[:16]}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_on(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except Exception:
            _log.exception("%s failed", request_id)
            if started:
                raise
            await internal_error().response()(scope, receive, send_on)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self.metrics.requests.labels(route, status).inc()
            spent = (time.monotonic() - began) * 1000
            _log.info("%s %r %d %.0f ms %s", scope["method"], scope["path"][:100], status, spent, request_id)


class AccessControl:
    """Turns away requests without the key, and those a web page elsewhere sends under a name of its own.

    Args:
        key: that clients must send as bearer token; None: no key.
        hosts: names this server goes by; None: any.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: Collection[str] | None):
        self.app, self.hosts = app, hosts
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._error(Headers(scope=scope), scope["path"])):
            return await error.response()(scope, receive, send)
        return await self.app(scope, receive, send)

    def _error(self, headers: Headers, path: str) -> ApiError | None:
        if self.hosts is not None and _host(headers.get("host", "")) not in self.hosts:
            message = "This server listens on the loopback interface and goes by localhost only."
            return ApiError(400, message, code="invalid_host")
        if self._key is None or path in OPEN:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self._key):
            return None
        message = "Missing or wrong API key: send it as 'Authorization: Bearer KEY'."
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
