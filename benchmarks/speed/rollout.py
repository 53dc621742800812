"""Measures the cost of alternating turns: tokens per second against one long turn, and the time of each turn.

    python benchmarks/speed/rollout.py PLANNER REASONER [EPISODES] [TURNS] [STEP_TOKENS] [ENGINE]

All episodes run concurrently through the dialogue of training and have all TURNS: steps have STEP_TOKENS tokens, and
the planner chooses among all strategies but termination. For comparison, the reasoner alone writes the same number of
tokens in one turn. All variants run in turn with the same two engines; the first round is not timed. Prints medians
over the rounds. ENGINE holds additional arguments of both engines: vLLM's AsyncEngineArgs as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Sequence

from verl_rsim.core.episode import Generation, Observer, Request, Turn
from verl_rsim.core.sampling_params import sampling_params
from verl_rsim.core.strategies import STRATEGIES, TERMINATION
from verl_rsim.evaluation import Planner, Reasoner, Rules, Sampling
from verl_rsim.evaluation.models import LanguageModel

ROUNDS = 3
SAMPLING = Sampling(temperature=1.0).params()


class TurnTimer(Observer):
    """Records the time at which each turn of an episode ends."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def wrote(self, turn: Turn) -> None:
        self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Returns the seconds of each turn."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


async def generate_exactly(model: LanguageModel, request: Request) -> Generation:
    """Generates exactly ``max_tokens`` tokens; a choice is any strategy but termination."""
    if request.allowed_ids is not None:
        last = [strategy.name for strategy in STRATEGIES].index(TERMINATION)
        others = tuple(label for index, label in enumerate(request.allowed_ids) if index != last)
        request = dataclasses.replace(request, allowed_ids=others)
    params = sampling_params(dataclasses.replace(request, stop=()), SAMPLING, None)
    return await model.engine.generate(request.prompt_ids, params | {"min_tokens": request.max_tokens})


async def alternating(planner: Planner, reasoner: Reasoner, chats: Sequence, turns: int, step: int) -> list[TurnTimer]:
    """Plays all episodes concurrently and returns their timers."""
    rules = Rules(max_turns=turns, max_step_tokens=step, max_answer_tokens=step)
    dialogue = rules.dialogue(planner.codec, planner.engine.context, reasoner.codec, reasoner.engine.context)
    timers = [TurnTimer() for _ in chats]

    async def play(chat, timer: TurnTimer) -> None:
        episode = await dialogue.play(
            chat, lambda r: generate_exactly(planner, r), lambda r: generate_exactly(reasoner, r), timer
        )
        assert len(episode.turns) == turns, f"{len(episode.turns)} turns, {episode.stop}"

    await asyncio.gather(*map(play, chats, timers))
    return timers


async def single(reasoner: Reasoner, chats: Sequence, tokens: int) -> None:
    """Lets the reasoner write ``tokens`` tokens in one turn for each chat, concurrently."""
    await asyncio.gather(*(generate_exactly(reasoner, Request(reasoner.codec.chat(chat), tokens)) for chat in chats))


def show(name: str, values: Sequence[float]) -> None:
    """Prints the median and the range of a ratio."""
    print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


async def main(
    planner_name: str, reasoner_name: str, count: str = "16", turns: str = "16", step: str = "32", engine: str = "{}"
) -> None:
    """Measures and prints the times."""
    engine_options = json.loads(engine)
    planner = Planner.from_pretrained(planner_name, engine_options=engine_options)
    reasoner = Reasoner.from_pretrained(reasoner_name, engine_options=engine_options)
    n, most, tokens = int(count), int(turns), int(step)
    variants = {
        "one turn": (n, 0),
        "alternating": (n, most),
        "half the turns": (n, most // 2),
        "half of them": (n // 2, most),
    }
    rounds: list[dict[str, float]] = []
    by_turn: list[list[float]] = []
    for number in range(ROUNDS + 1):
        rounds.append({})
        for variant, (episodes, length) in variants.items():
            # New questions each time, so that only the menu is in the prefix cache.
            chats = [[{"role": "user", "content": f"What is {number}{i:03} + {29 * i + 8}?"}] for i in range(episodes)]
            chats = [[{**chat[0], "content": f"{variant}. {chat[0]['content']}"}] for chat in chats]
            start = time.perf_counter()
            if length:
                timers = await alternating(planner, reasoner, chats, length, tokens)
            else:
                await single(reasoner, chats, most * tokens)
            rounds[-1][variant] = time.perf_counter() - start
            if number and variant == "alternating":
                by_turn += [timer.seconds() for timer in timers]
    await planner.close()
    await reasoner.close()
    timed = rounds[1:]
    print(f"{n} concurrent episodes, {most} turns of {tokens} tokens")
    for variant in variants:
        print(f"{variant:15} {statistics.median(times[variant] for times in timed):7.2f} s")
    show("reasoner tokens/s, alternating / one turn", [times["one turn"] / times["alternating"] for times in timed])
    show("time, all turns / half of them", [times["alternating"] / times["half the turns"] for times in timed])
    show("time, all episodes / half of them", [times["alternating"] / times["half of them"] for times in timed])
    medians = [statistics.median(seconds) for seconds in zip(*by_turn, strict=True)]
    print("seconds by turn:", " ".join(f"{seconds:.2f}" for seconds in medians))
    print(f"last turn / turn 2: {medians[-1] / medians[1]:.2f}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
