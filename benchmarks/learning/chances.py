"""Measures how well a reasoner was taught: its probability of the right text, computed in plain torch.

    python benchmarks/learning/chances.py FOLDER [--kinds 9] [--turns 1] [--skill 1]

Prints the mean, lowest and highest probability over 60 questions: of the steps and the answer after the right
strategies, of the same text if the last strategy is one of the eight others, and of the answer without a planner.
FOLDER is the folder of run.py.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import defaultdict
from pathlib import Path

import torch
from task import ReasonerSpec, Script, answer_ids, build_dialogue, certain, chat, random_question
from training import Run

from verl_rsim.core.episode import Generation, Request

QUESTIONS = 60


class GivenStrategies(Script):
    """Plays the right text under a given strategy, even if that strategy is wrong."""

    async def plan(self, request: Request) -> Generation:
        """Chooses the given strategy."""
        return certain([self.labels[self.right[len(self.chosen)]]])


def main() -> None:
    """Prints the probabilities."""
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    parser.add_argument("--skill", type=float, default=1.0)
    options = parser.parse_args()
    run = Run(kinds=options.kinds, turns=options.turns, skill=options.skill)
    dialogue = build_dialogue(run.planner(options.folder), run.reasoner(options.folder), run.turns)
    reasoner, rng = dialogue.reasoner, random.Random(5)
    folder = run.reasoner(options.folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)

    def probability(prompt: tuple[int, ...], response: tuple[int, ...], mask: tuple[int, ...]) -> float:
        with torch.no_grad():
            log_probs = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return (log_probs.gather(1, torch.tensor(response)[:, None])[:, 0] * torch.tensor(mask)).sum().exp().item()

    probabilities: dict[str, list[float]] = defaultdict(list)
    for _ in range(QUESTIONS):
        kind, question = random_question(rng, options.kinds)
        answer = answer_ids(reasoner, question.answer)
        probabilities["without a planner"].append(
            probability(tuple(reasoner.chat(chat(question))), answer, (1,) * len(answer))
        )
        for strategy in range(len(dialogue.label_ids)):
            spec = ReasonerSpec(options.kinds, options.turns)
            script = GivenStrategies(reasoner, dialogue.label_ids, strategy, question.answer, spec, rng)
            row = asyncio.run(dialogue.play(chat(question), script.plan, script.write, script)).reasoner_row()
            condition = "after the right strategies" if strategy == kind else "after another"
            probabilities[condition].append(probability(row.prompt_ids, row.response_ids, row.mask))
    for condition, values in probabilities.items():
        print(f"{condition}: {sum(values) / len(values):.4f} ({min(values):.4f} to {max(values):.4f})")


if __name__ == "__main__":
    main()
