"""Errors in OpenAI's format: an HTTP status, and an object with message, type, param and code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from verl_rsim.utils.errors import EngineBusy, EngineError, EngineTimeout


class ApiError(Exception):
    """Ends a request with an error response.

    Args:
        status: HTTP status.
        message: text for the client; must not contain internal details such as hosts or paths.
        param: name of the wrong request field.
        code: OpenAI's error code, where it has one.
        headers: additional response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """OpenAI's error type for this status."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """Returns the error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Returns the HTTP response."""
        return JSONResponse(self.body(), self.status, self.headers)


class ClientDisconnected(Exception):
    """Raised when the client closes the connection before it has its answer."""


def internal_error() -> ApiError:
    """Returns the error for an unexpected exception."""
    return ApiError(500, "The server failed; its log says why.", code="internal_error")


def engine_api_error(error: EngineError) -> ApiError:
    """Returns the error for a failed engine, without the engine's own message, which may name hosts and paths."""
    if isinstance(error, EngineBusy):
        message = "A model's engine rejects requests because it is busy; try again later."
        return ApiError(503, message, code="upstream_busy", headers={"Retry-After": "5"})
    if isinstance(error, EngineTimeout):
        return ApiError(504, "A model's engine did not answer in time.", code="upstream_timeout")
    return ApiError(502, "A model's engine failed or cannot be reached.", code="upstream_error")
