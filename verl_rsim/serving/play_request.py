"""The episodes of one request, as events in the order they happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from verl_rsim.core.dialogue import Episode, StepEnd, Stop
from verl_rsim.evaluation.engines.base import Sampling
from verl_rsim.serving.errors import ApiError
from verl_rsim.serving.events import STOP_STRING, Chose, Counts, EpisodeFinished, Event, Wrote
from verl_rsim.serving.protocol import ChatRequest
from verl_rsim.serving.response_builder import Answer, StopFound
from verl_rsim.serving.service import Service


async def play_all(service: Service, asked: ChatRequest) -> AsyncGenerator[Event, None]:
    """Play the request's episodes side by side. Closing the generator ends them.

    Raises:
        ApiError: no room, no time left, or a question the models cannot read.
        EngineError: a model failed.
    """
    began = time.monotonic()
    news: asyncio.Queue[Event | asyncio.Task[EpisodeFinished] | ApiError] = asyncio.Queue()
    late = ApiError(504, f"The request took longer than {service.limits.timeout:g} s.", code="timeout")

    def settled(task: asyncio.Task[EpisodeFinished]) -> None:
        if not task.cancelled():
            task.exception()  # the first failure is raised; of the others asyncio would complain
        news.put_nowait(task)

    with service.gate.admit(asked.n):
        tasks = [asyncio.create_task(_play(service, asked, index, news.put_nowait)) for index in range(asked.n)]
        for task in tasks:
            task.add_done_callback(settled)
        alarm = asyncio.get_running_loop().call_later(service.limits.timeout, news.put_nowait, late)
        service.ends.add(news.put_nowait)
        try:
            playing, silent = len(tasks), True
            while playing:
                event = await news.get()
                if isinstance(event, ApiError):
                    raise event
                if isinstance(event, asyncio.Task):
                    event = event.result()
                    playing -= 1
                    service.metrics.finished(event)
                elif isinstance(event, Chose):
                    service.metrics.strategies.labels(event.strategy.name).inc()
                elif isinstance(event, Wrote) and silent and asked.stream:
                    silent = False
                    service.metrics.first.observe(time.monotonic() - began)
                yield event
            service.metrics.whole.observe(time.monotonic() - began)
        except (GeneratorExit, asyncio.CancelledError):
            service.metrics.gone.inc()
            raise
        finally:
            alarm.cancel()
            service.ends.discard(news.put_nowait)
            for task in tasks:
                task.cancel()


async def _play(service: Service, asked: ChatRequest, index: int, report: Callable[[Event], None]) -> EpisodeFinished:
    dialogue, sampling = service.dialogue_for(asked), Sampling(asked.temperature, asked.top_p)
    seed = None if asked.seed is None else f"{asked.seed}/{index}"
    answer = Answer(index, dialogue.reasoner, asked.stop, asked.rsim.strategies == "inline", report)
    planner, reasoner = service.planner.sampler(sampling, seed), service.reasoner.sampler(sampling, seed)
    if asked.stream or asked.stop:
        reasoner.watch = answer.sampled
    async with service.gate.playing:
        try:
            episode = await dialogue.play(asked.chat, planner, reasoner, answer)
            answer.end()
            stop, reason = episode.stop.value, _finish_reason(episode)
        except StopFound:
            stop, reason = STOP_STRING, "stop"
    if stop == Stop.PROMPT_TOO_LONG.value:
        raise service.too_long()
    read, written = reasoner.read, reasoner.tokens + answer.cut
    return EpisodeFinished(
        index, reason, stop, answer.text, answer.steps(), Counts(planner.read, planner.tokens), Counts(read, written)
    )


def _finish_reason(episode: Episode) -> str:
    """OpenAI's word for why the answer ends: "length" wherever a bound of tokens or turns cut it."""
    cut = episode.stop in (Stop.MAX_TURNS, Stop.BUDGET)
    return "length" if cut or (episode.turns and episode.turns[-1].step_end is StepEnd.LENGTH) else "stop"
