"""Middleware that every request passes before it is routed: access log, host check and API key check."""

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
PUBLIC_PATHS = frozenset({"/", "/health", "/page.css", "/page.js", "/report.css"})
"""Paths that need no API key: their content is the same for everybody."""

_log = logging.getLogger(__name__)


class AccessLog:
    """Gives each request an id and logs one line for it, without headers, query or body."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start = time.monotonic()
        status, headers_sent = 500, False
        request_id = f"req-{uuid4().hex[:16]}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status, headers_sent
            if message["type"] == "http.response.start":
                status, headers_sent = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            _log.exception("%s failed", request_id)
            # A status cannot be sent twice: in the middle of a response only closing the connection is left.
            if headers_sent:
                raise
            await internal_error().response()(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self.metrics.requests.labels(route, status).inc()
            milliseconds = (time.monotonic() - start) * 1000
            _log.info("%s %r %d %.0f ms %s", scope["method"], scope["path"][:100], status, milliseconds, request_id)


class AccessControl:
    """Rejects requests without the API key, and requests that address the server by a foreign host name.

    The host check stops DNS rebinding: a web page whose own domain resolves to this machine sends that domain as host.

    Args:
        key: API key that clients must send as bearer token; None: no key is needed.
        hosts: host names that are accepted; None: all.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: Collection[str] | None):
        self.app, self.hosts = app, hosts
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = self._check(Headers(scope=scope), scope["path"])
            if error:
                return await error.response()(scope, receive, send)
        return await self.app(scope, receive, send)

    def _check(self, headers: Headers, path: str) -> ApiError | None:
        if self.hosts is not None and _host(headers.get("host", "")) not in self.hosts:
            message = "This server listens on the loopback interface and accepts requests for localhost only."
            return ApiError(400, message, code="invalid_host")
        if self._key is None or path in PUBLIC_PATHS:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        # Constant-time comparison: the time of an answer must not reveal how much of a key is right.
        if scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), self._key):
            return None
        message = "Missing or wrong API key: send it as 'Authorization: Bearer KEY'."
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _host(header: str) -> str:
    """Returns the host name of a ``Host`` header without its port; empty if the header cannot be parsed."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
