"""Errors as OpenAI's clients expect them: a status, and an object with message, type, param and code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from verl_rsim.utils.errors import EngineBusy, EngineError, EngineTimeout


class ApiError(Exception):
    """A request that is not answered as asked.

    Args:
        status: of HTTP.
        message: for the client; holds nothing that is none of its business.
        param: the request's field that is wrong.
        code: OpenAI's, where it has one.
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
        """OpenAI's name for this kind of error."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, self.headers)


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


def internal_error() -> ApiError:
    """What a client is told of a failure that nobody foresaw."""
    return ApiError(500, "The server failed; its log says why.", code="internal_error")


def of_engine(error: EngineError) -> ApiError:
    """What a client is told of a model's failure; what exactly failed, and where, is for the log."""
    if isinstance(error, EngineBusy):
        message = "A model's engine turns requests away; try again later."
        return ApiError(503, message, code="upstream_busy", headers={"Retry-After": "5"})
    if isinstance(error, EngineTimeout):
        return ApiError(504, "A model's engine did not answer in time.", code="upstream_timeout")
    return ApiError(502, "A model's engine failed or cannot be reached.", code="upstream_error")
