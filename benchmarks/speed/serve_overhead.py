"""Compares the server with ``play`` and with the reasoner alone, at equal reasoner tokens.

    python benchmarks/speed/serve_overhead.py PLANNER REASONER [QUESTIONS] [CONCURRENCY] [STEP_TOKENS]

Every question is answered in three ways, in turn, by the same two engines: streamed by the server to OpenAI's client;
by ``play`` without a server; and by the reasoner alone, which is forced to write the same number of tokens as in the
episode. Prints the seconds (median of the rounds) and their ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import openai

from verl_rsim.evaluation import Planner, Reasoner, Rules, Sampling, play
from verl_rsim.evaluation.runner import in_parallel
from verl_rsim.serving.server import Server, bind
from verl_rsim.serving.service import Service

ROUNDS = 3
SAMPLING = Sampling(temperature=1.0)


async def seconds(questions: list[str], concurrency: int, answer: Callable[[str], Awaitable[None]]) -> float:
    """Returns the seconds of answering all questions, ``concurrency`` at a time."""
    start = time.perf_counter()
    await in_parallel(questions, concurrency, answer)
    return time.perf_counter() - start


async def compare(service: Service, client: openai.AsyncOpenAI, questions: list[str], concurrency: int) -> None:
    """Measures and prints the times."""
    reasoner, written = service.reasoner, dict.fromkeys(questions, 0)

    async def served(question: str) -> None:
        chat = [{"role": "user", "content": question}]
        body = {"model": "rsim", "messages": chat, "seed": 1, "temperature": SAMPLING.temperature}
        stream = await client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
        last = [chunk async for chunk in stream][-1]
        written[question] = last.usage.rsim["reasoner"]["completion_tokens"]

    async def played(question: str) -> None:
        await play(question, service.planner, reasoner, service.rules, SAMPLING, "1/0")

    async def reasoner_alone(question: str) -> None:
        prompt = reasoner.codec.chat([{"role": "user", "content": question}])
        count = written[question]
        params = {**SAMPLING.params(), "max_tokens": count, "min_tokens": count, "ignore_eos": True, "seed": 1}
        await reasoner.engine.generate(prompt, params)

    ways = {"served": served, "played": played, "bare": reasoner_alone}
    for answer in ways.values():  # warm-up; it also counts the tokens of each question
        await seconds(questions, concurrency, answer)
    rounds = [
        {name: await seconds(questions, concurrency, answer) for name, answer in ways.items()} for _ in range(ROUNDS)
    ]
    print(f"{len(questions)} questions, {concurrency} concurrent, {sum(written.values())} reasoner tokens in each way")
    for name in ways:
        print(f"{name:8} {statistics.median(times[name] for times in rounds):7.2f} s")
    for one, other in (("served", "played"), ("played", "bare"), ("served", "bare")):
        ratios = sorted(times[one] / times[other] for times in rounds)
        print(f"{one} / {other}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


async def main(
    planner: str, reasoner: str, count: str = "16", concurrency: str = "8", step_tokens: str = "128"
) -> None:
    """Starts the server and compares."""
    rules = Rules(max_step_tokens=int(step_tokens), max_answer_tokens=int(step_tokens))
    service = Service(Planner.from_pretrained(planner), Reasoner.from_pretrained(reasoner), rules)
    questions = [f"What is {17 * i + 3} + {29 * i + 8}?" for i in range(int(count))]
    with bind("127.0.0.1", 0) as listener:
        await service.start()
        server = Server(service)
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            await compare(service, client, questions, int(concurrency))
        server.should_exit = True
        await task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
