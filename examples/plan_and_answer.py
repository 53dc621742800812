"""Answers a question with a trained planner and a reasoner; both are loaded into vLLM or behind a URL.

python examples/plan_and_answer.py PLANNER REASONER "What is 12 + 30?"
"""

from __future__ import annotations

import asyncio
import sys

from verl_rsim.evaluation import Planner, Reasoner, play


async def main(planner_source: str, reasoner_source: str, question: str) -> None:
    """Plays one episode and prints its turns."""
    planner, reasoner = Planner.from_pretrained(planner_source), Reasoner.from_pretrained(reasoner_source)
    episode = await play(question, planner, reasoner)
    for strategy, turn in zip(episode.strategies, episode.turns, strict=True):
        print(f"[{strategy.title}] {turn.step_text.strip()}")
    print(f"ended by: {episode.stop.value}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
