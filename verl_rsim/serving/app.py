"""The HTTP interface: OpenAI's chat completions, the models, health, metrics, and the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from verl_rsim.serving import page
from verl_rsim.serving.completion import Completion, sse
from verl_rsim.serving.errors import ApiError, ClientGone, internal_error, of_engine
from verl_rsim.serving.events import Event
from verl_rsim.serving.middleware import AccessControl, AccessLog
from verl_rsim.serving.play_request import play_all
from verl_rsim.serving.protocol import parse
from verl_rsim.serving.service import Service
from verl_rsim.utils.errors import EngineError

BODY_SECONDS = 30.0
"""For a client to send its request."""
SLACK = 5
"""Seconds for clients to take the end of their answers."""

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def create_app(service: Service, key: str | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """The application.

    Args:
        service: what is served; started already, closed at shutdown.
        key, hosts: see :class:`verl_rsim.serving.middleware.AccessControl`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(title="verl-rsim", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(AccessControl, key=key, hosts=hosts)
    app.add_middleware(AccessLog, metrics=service.metrics)
    _add_errors(app, service)
    _add_routes(app, service)
    page.add_routes(app, service, asks_key=key is not None)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    card = {"id": service.name, "object": "model", "created": service.created, "owned_by": "verl-rsim"}
    card["max_model_len"] = service.reasoner.engine.context

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked = parse(await read_json(request, service.limits.max_body))
        service.check(asked)
        await service.check_messages(asked)
        completion, events = Completion(service.name, asked), play_all(service, asked)
        if not asked.stream:
            return JSONResponse(await unless_gone(request, completion.whole(events)))
        first = await unless_gone(request, anext(events))  # what fails at once is answered with its own status
        chunks = _stream(completion, first, events, partial(_failure, service, request))
        return EventStream(chunks, events, service.limits.timeout + SLACK)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != service.name:
            raise ApiError(404, f"The model {name[:100]!r} does not exist.", param="model", code="model_not_found")
        return card

    @app.get("/health")
    async def health() -> dict[str, str]:
        await service.check_health()
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(EngineError)
    async def failed(request: Request, error: EngineError) -> Response:
        return _failure(service, request, error).response()

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:100]}: {error.detail}."
        return ApiError(error.status_code, message, headers=error.headers).response()


def _failure(service: Service, request: Request, error: EngineError) -> ApiError:
    _log.error("%s %s", request.state.request_id, error)
    service.metrics.failures.inc()
    return of_engine(error)


async def read_json(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        ApiError: it is not declared as JSON, has more than ``limit`` bytes, or does not come in time.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send JSON, with the header 'Content-Type: application/json'.", code="invalid_content_type")

    async def read() -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                message = f"The body has more than {limit} bytes."
                raise ApiError(413, message, code="request_too_large", headers={"Connection": "close"})
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError as error:
        raise ApiError(408, f"The body did not come within {BODY_SECONDS:g} s.", code="timeout") from error


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Do the work, or cancel it when the client leaves.

    Raises:
        ClientGone: it left.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.create_task(left())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _stream(
    completion: Completion,
    first: Event,
    events: AsyncGenerator[Event, None],
    failure: Callable[[EngineError], ApiError],
) -> AsyncGenerator[str, None]:
    async def all_events() -> AsyncIterator[Event]:
        yield first
        async for event in events:
            yield event

    try:
        async for chunk in completion.chunks(all_events()):
            yield sse(chunk)
        yield sse("[DONE]")
    except ApiError as error:
        yield sse(error.body())
    except EngineError as error:
        yield sse(failure(error).body())
    except Exception:
        yield sse(internal_error().body())
        raise


class EventStream(StreamingResponse):
    """A stream whose work is ended however the response ends, and after ``seconds`` for a client that does not read."""

    def __init__(self, content: AsyncIterator[str], work: AsyncGenerator[Event, None], seconds: float):
        super().__init__(content, media_type="text/event-stream")
        self.work, self.seconds = work, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.work):
            with suppress(asyncio.TimeoutError):  # the connection is then closed in mid-stream
                await asyncio.wait_for(super().__call__(scope, receive, send), self.seconds)
