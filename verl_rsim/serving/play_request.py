"""Plays the episodes of one request and merges their events into one stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from verl_rsim.core.episode import Episode, StepEnd, Stop
from verl_rsim.evaluation.engines.base import Sampling
from verl_rsim.serving.errors import ApiError
from verl_rsim.serving.events import STOP_STRING, EpisodeFinished, Event, StrategyChosen, TextDelta, TokenCounts
from verl_rsim.serving.protocol import ChatRequest
from verl_rsim.serving.response_builder import AnswerBuilder, StopStringReached
from verl_rsim.serving.service import Service


async def play_episodes(service: Service, request: ChatRequest) -> AsyncGenerator[Event, None]:
    """Plays the request's episodes concurrently and yields their events in the order they happen.

    Closing the generator cancels the episodes.

    Raises:
        ApiError: the queue is full, the request timed out, or the models cannot read the question.
        EngineError: a model failed.
    """
    start = time.monotonic()
    # One queue for events, finished tasks and errors: the timeout and the shutdown wake the same loop as the episodes.
    queue: asyncio.Queue[Event | asyncio.Task[EpisodeFinished] | ApiError] = asyncio.Queue()
    timeout_error = ApiError(504, f"The request took longer than {service.limits.timeout:g} s.", code="timeout")

    def on_done(task: asyncio.Task[EpisodeFinished]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as retrieved: asyncio would log those that follow the first, which is raised
        queue.put_nowait(task)

    with service.admission.admit(request.n):
        tasks = [asyncio.create_task(_play(service, request, index, queue.put_nowait)) for index in range(request.n)]
        for task in tasks:
            task.add_done_callback(on_done)
        timer = asyncio.get_running_loop().call_later(service.limits.timeout, queue.put_nowait, timeout_error)
        service.abort_callbacks.add(queue.put_nowait)
        try:
            unfinished, text_seen = len(tasks), False
            while unfinished:
                event = await queue.get()
                if isinstance(event, ApiError):
                    raise event
                if isinstance(event, asyncio.Task):
                    event = event.result()
                    unfinished -= 1
                    service.metrics.count_episode(event)
                elif isinstance(event, StrategyChosen):
                    service.metrics.strategies.labels(event.strategy.name).inc()
                elif isinstance(event, TextDelta) and not text_seen and request.stream:
                    text_seen = True
                    service.metrics.first_text_seconds.observe(time.monotonic() - start)
                yield event
            service.metrics.request_seconds.observe(time.monotonic() - start)
        except (GeneratorExit, asyncio.CancelledError):
            service.metrics.disconnects.inc()
            raise
        finally:
            timer.cancel()
            service.abort_callbacks.discard(queue.put_nowait)
            for task in tasks:
                task.cancel()


async def _play(service: Service, request: ChatRequest, index: int, report: Callable[[Event], None]) -> EpisodeFinished:
    dialogue, sampling = service.dialogue_for(request), Sampling(request.temperature, request.top_p)
    seed = None if request.seed is None else f"{request.seed}/{index}"
    answer = AnswerBuilder(
        index=index,
        codec=dialogue.reasoner,
        stops=request.stop,
        inline=request.rsim.strategies == "inline",
        report=report,
    )
    planner, reasoner = service.planner.sampler(sampling, seed), service.reasoner.sampler(sampling, seed)
    # Tokens are watched only where they are needed early; without a stream or stop strings finished steps are enough.
    if request.stream or request.stop:
        reasoner.on_tokens = answer.add_tokens
    async with service.admission.slots:
        try:
            episode = await dialogue.play(request.chat, planner, reasoner, answer)
            answer.flush()
            stop, reason = episode.stop.value, _finish_reason(episode)
        except StopStringReached:
            stop, reason = STOP_STRING, "stop"
    if stop == Stop.PROMPT_TOO_LONG.value:
        raise service.context_length_error()
    return EpisodeFinished(
        index=index,
        finish_reason=reason,
        stop=stop,
        text=answer.text,
        turns=answer.turns(),
        planner=TokenCounts(planner.read, planner.tokens),
        reasoner=TokenCounts(reasoner.read, reasoner.tokens + answer.unfinished_tokens),
    )


def _finish_reason(episode: Episode) -> str:
    """Returns OpenAI's finish reason: "length" if a limit of tokens or turns cut the answer, else "stop"."""
    if episode.stop in (Stop.MAX_TURNS, Stop.BUDGET):
        return "length"
    if episode.turns and episode.turns[-1].step_end is StepEnd.LENGTH:
        return "length"
    return "stop"
