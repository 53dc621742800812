"""What alternating costs the reasoner: tokens a second against one long turn, time by turn, and how time grows.

    python benchmarks/speed/rollout.py PLANNER REASONER [INTERACTIONS] [TURNS] [STEP_TOKENS] [ENGINE]

All episodes run at once, through the dialogue of training, and go through all their turns: steps have STEP_TOKENS
tokens, the planner chooses among all strategies but termination. The bare reasoner writes as many tokens in one turn.
All ways run in turn, by the same two engines; the first round is not timed. Prints medians over the rounds. ENGINE is
what both engines are told beside: vLLM's AsyncEngineArgs as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Sequence

from verl_rsim.core.dialogue import Generation, Observer, Request, Turn
from verl_rsim.core.sampling_params import sampling_params
from verl_rsim.core.strategies import STRATEGIES, TERMINATION
from verl_rsim.evaluation import Planner, Reasoner, Rules, Sampling
from verl_rsim.evaluation.models import Player

ROUNDS = 3
SAMPLING = Sampling(temperature=1.0).params()


class Clock(Observer):
    """Notes when each turn of an episode ends."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def wrote(self, turn: Turn) -> None:
        self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each turn."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


async def exactly(player: Player, request: Request) -> Generation:
    """As many tokens as may be; a choice is no termination."""
    if request.allowed_ids is not None:
        last = [strategy.name for strategy in STRATEGIES].index(TERMINATION)
        others = tuple(label for index, label in enumerate(request.allowed_ids) if index != last)
        request = dataclasses.replace(request, allowed_ids=others)
    params = sampling_params(dataclasses.replace(request, stop=()), SAMPLING, None)
    return await player.engine.generate(request.prompt_ids, params | {"min_tokens": request.max_tokens})


async def alternating(planner: Planner, reasoner: Reasoner, chats: Sequence, turns: int, step: int) -> list[Clock]:
    """Play all episodes at once."""
    rules = Rules(max_turns=turns, max_step_tokens=step, max_answer_tokens=step)
    dialogue = rules.dialogue(planner.codec, planner.engine.context, reasoner.codec, reasoner.engine.context)
    clocks = [Clock() for _ in chats]

    async def play(chat, clock: Clock) -> None:
        episode = await dialogue.play(chat, lambda r: exactly(planner, r), lambda r: exactly(reasoner, r), clock)
        assert len(episode.turns) == turns, f"{len(episode.turns)} turns, {episode.stop}"

    await asyncio.gather(*map(play, chats, clocks))
    return clocks


async def single(reasoner: Reasoner, chats: Sequence, tokens: int) -> None:
    """Let the reasoner write ``tokens`` in one turn, all at once."""
    await asyncio.gather(*(exactly(reasoner, Request(reasoner.codec.chat(chat), tokens)) for chat in chats))


def show(name: str, values: Sequence[float]) -> None:
    """A ratio: its median, and its range."""
    print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


async def main(
    planner_name: str, reasoner_name: str, count: str = "16", turns: str = "16", step: str = "32", engine: str = "{}"
) -> None:
    """Measure and print."""
    told = json.loads(engine)
    planner = Planner.from_pretrained(planner_name, engine_options=told)
    reasoner = Reasoner.from_pretrained(reasoner_name, engine_options=told)
    n, most, tokens = int(count), int(turns), int(step)
    ways = {
        "one turn": (n, 0),
        "alternating": (n, most),
        "half the turns": (n, most // 2),
        "half of them": (n // 2, most),
    }
    rounds: list[dict[str, float]] = []
    by_turn: list[list[float]] = []
    for number in range(ROUNDS + 1):
        rounds.append({})
        for way, (episodes, length) in ways.items():  # new questions each time: nothing is cached but the menu
            chats = [[{"role": "user", "content": f"What is {number}{i:03} + {29 * i + 8}?"}] for i in range(episodes)]
            chats = [[{**chat[0], "content": f"{way}. {chat[0]['content']}"}] for chat in chats]
            began = time.perf_counter()
            if length:
                clocks = await alternating(planner, reasoner, chats, length, tokens)
            else:
                await single(reasoner, chats, most * tokens)
            rounds[-1][way] = time.perf_counter() - began
            if number and way == "alternating":
                by_turn += [clock.seconds() for clock in clocks]
    await planner.close()
    await reasoner.close()
    timed = rounds[1:]
    print(f"{n} episodes at once, {most} turns of {tokens} tokens")
    for way in ways:
        print(f"{way:15} {statistics.median(times[way] for times in timed):7.2f} s")
    show("reasoner tokens/s, alternating / one turn", [times["one turn"] / times["alternating"] for times in timed])
    show("time, all turns / half of them", [times["alternating"] / times["half the turns"] for times in timed])
    show("time, all episodes / half of them", [times["alternating"] / times["half of them"] for times in timed])
    medians = [statistics.median(of) for of in zip(*by_turn, strict=True)]
    print("seconds by turn:", " ".join(f"{seconds:.2f}" for seconds in medians))
    print(f"last turn / turn 2: {medians[-1] / medians[1]:.2f}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
