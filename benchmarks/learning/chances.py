"""How well was a reasoner taught? Its probability of the right words, in plain torch, from its weights.

    python benchmarks/learning/chances.py FOLDER [--kinds 9] [--turns 1] [--skill 1]

Of the steps and the answer that it should write after the right strategies, of the same where the last strategy is one
of the eight others, and of the answer without a planner; over 60 questions: mean, lowest, highest. FOLDER is run.py's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import defaultdict
from pathlib import Path

import torch
from task import Script, Taught, answer_ids, chat, dialogue_of, drawn, sure
from training import Run

from verl_rsim.core.dialogue import Generation, Request

QUESTIONS = 60


class Chosen(Script):
    """Writes the right answer under the strategies that it is given, whether they are the right ones or not."""

    async def plan(self, request: Request) -> Generation:
        """The strategy given."""
        return sure([self.labels[self.wanted[len(self.chosen)]]])


def main() -> None:
    """The command above."""
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    parser.add_argument("--skill", type=float, default=1.0)
    asked = parser.parse_args()
    run = Run(kinds=asked.kinds, turns=asked.turns, skill=asked.skill)
    dialogue = dialogue_of(run.planner(asked.folder), run.reasoner(asked.folder), run.turns)
    reasoner, source = dialogue.reasoner, random.Random(5)
    model = AutoModelForCausalLM.from_pretrained(run.reasoner(asked.folder), dtype=torch.float32)

    def chance(prompt: tuple[int, ...], response: tuple[int, ...], mask: tuple[int, ...]) -> float:
        with torch.no_grad():
            log_probs = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return (log_probs.gather(1, torch.tensor(response)[:, None])[:, 0] * torch.tensor(mask)).sum().exp().item()

    found = defaultdict(list)
    for _ in range(QUESTIONS):
        kind, one = drawn(source, asked.kinds)
        answer = answer_ids(reasoner, one.answer)
        found["without a planner"].append(chance(tuple(reasoner.chat(chat(one))), answer, (1,) * len(answer)))
        for strategy in range(len(dialogue.label_ids)):
            taught = Taught(asked.kinds, asked.turns)
            script = Chosen(reasoner, dialogue.label_ids, strategy, one.answer, taught, source)
            row = asyncio.run(dialogue.play(chat(one), script.plan, script.write, script)).reasoner_row()
            after = "after the right strategies" if strategy == kind else "after another"
            found[after].append(chance(row.prompt_ids, row.response_ids, row.mask))
    for after, chances in found.items():
        print(f"{after}: {sum(chances) / len(chances):.4f} ({min(chances):.4f} to {max(chances):.4f})")


if __name__ == "__main__":
    main()
