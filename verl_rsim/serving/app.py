"""The HTTP application: OpenAI's chat completions and models, health, metrics, and the web page."""

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
from verl_rsim.serving.completion import Completion, server_sent_event
from verl_rsim.serving.errors import ApiError, ClientDisconnected, engine_api_error, internal_error
from verl_rsim.serving.events import Event
from verl_rsim.serving.middleware import AccessControl, AccessLog
from verl_rsim.serving.play_request import play_episodes
from verl_rsim.serving.protocol import parse_request
from verl_rsim.serving.service import Service
from verl_rsim.utils.errors import EngineError

BODY_SECONDS = 30.0
"""Seconds within which a client must send its request's body."""
FLUSH_SECONDS = 5
"""Seconds that clients get to read the end of their answers, after a timeout or an abort."""

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def create_app(service: Service, key: str | None = None, hosts: Collection[str] | None = None) -> FastAPI:
    """Creates the application.

    Args:
        service: started models and their limits; closed when the application shuts down.
        key, hosts: see :class:`verl_rsim.serving.middleware.AccessControl`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(title="verl-rsim", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    # The middleware that is added last runs first: requests that access control rejects are logged, too.
    app.add_middleware(AccessControl, key=key, hosts=hosts)
    app.add_middleware(AccessLog, metrics=service.metrics)
    _add_error_handlers(app, service)
    _add_chat_route(app, service)
    _add_info_routes(app, service)
    page.add_routes(app, service, requires_key=key is not None)
    return app


def _add_chat_route(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        chat_request = parse_request(await read_json(request, service.limits.max_body))
        service.check_request(chat_request)
        await service.check_messages(chat_request)
        completion = Completion(service.name, chat_request)
        events = play_episodes(service, chat_request)
        if not chat_request.stream:
            return JSONResponse(await cancel_on_disconnect(request, completion.collect(events)))
        # The response's status is sent with its first byte: waiting for the first event lets an error that happens
        # at once (a full queue, a dead engine) have its own status instead of 200.
        first = await cancel_on_disconnect(request, anext(events))
        chunks = _stream(completion, first, events, partial(_report_engine_error, service, request))
        return EventStream(chunks, events, service.limits.timeout + FLUSH_SECONDS)


def _add_info_routes(app: FastAPI, service: Service) -> None:
    model_card = {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "verl-rsim",
        "max_model_len": service.reasoner.engine.context,
    }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != service.name:
            raise ApiError(404, f"The model {name[:100]!r} does not exist.", param="model", code="model_not_found")
        return model_card

    @app.get("/health")
    async def health() -> dict[str, str]:
        await service.check_health()
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    @app.exception_handler(ApiError)
    async def handle_api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(EngineError)
    async def handle_engine_error(request: Request, error: EngineError) -> Response:
        return _report_engine_error(service, request, error).response()

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(ClientDisconnected)
    async def handle_disconnect(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; the access log and the metrics have it

    @app.exception_handler(HTTPException)
    async def handle_http_exception(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:100]}: {error.detail}."
        return ApiError(error.status_code, message, headers=error.headers).response()


def _report_engine_error(service: Service, request: Request, error: EngineError) -> ApiError:
    """Logs and counts an engine's error; returns the error for the client."""
    _log.error("%s %s", request.state.request_id, error)
    service.metrics.engine_failures.inc()
    return engine_api_error(error)


async def read_json(request: Request, limit: int) -> bytes:
    """Returns the request's body.

    Raises:
        ApiError: the body is not declared as JSON, has more than ``limit`` bytes, or does not arrive in time.
    """
    # A form on another web page can send text/plain across origins without asking, but not application/json.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Send JSON, with the header 'Content-Type: application/json'.", code="invalid_content_type")

    async def read() -> bytes:
        body = bytearray()
        # Counted while reading: a body sent in chunks has no Content-Length that could be checked before.
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                message = f"The body has more than {limit} bytes."
                raise ApiError(413, message, code="request_too_large", headers={"Connection": "close"})
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError as error:
        raise ApiError(408, f"The body did not arrive within {BODY_SECONDS:g} s.", code="timeout") from error


async def cancel_on_disconnect(request: Request, work: Awaitable[Result]) -> Result:
    """Returns the result of ``work``, or cancels it when the client disconnects.

    Raises:
        ClientDisconnected: the client disconnected first.
    """

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, disconnect = asyncio.ensure_future(work), asyncio.create_task(wait_for_disconnect())
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        task.cancel()
        disconnect.cancel()


async def _stream(
    completion: Completion,
    first: Event,
    events: AsyncGenerator[Event, None],
    report_engine_error: Callable[[EngineError], ApiError],
) -> AsyncGenerator[str, None]:
    async def all_events() -> AsyncIterator[Event]:
        yield first
        async for event in events:
            yield event

    try:
        async for chunk in completion.chunks(all_events()):
            yield server_sent_event(chunk)
        yield server_sent_event("[DONE]")
    except ApiError as error:
        yield server_sent_event(error.body())
    except EngineError as error:
        yield server_sent_event(report_engine_error(error).body())
    except Exception:
        yield server_sent_event(internal_error().body())
        raise


class EventStream(StreamingResponse):
    """Streams server-sent events, and closes ``events`` in whatever way the response ends.

    Args:
        content: the encoded events.
        events: the generator behind them; closing it cancels the episodes.
        timeout: seconds until the connection of a client that does not read is closed.
    """

    def __init__(self, content: AsyncIterator[str], events: AsyncGenerator[Any, None], timeout: float):
        super().__init__(content, media_type="text/event-stream")
        self.events, self.timeout = events, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette does not close a generator that it stops reading; without aclosing the episodes would play on.
        async with aclosing(self.events):
            with suppress(asyncio.TimeoutError):  # the connection is then closed in the middle of the stream
                await asyncio.wait_for(super().__call__(scope, receive, send), self.timeout)
