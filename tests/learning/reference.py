"""What the curve should look like: the same planner, task and update in plain torch, without verl, vLLM or a reasoner.

    python tests/learning/reference.py FOLDER [--seeds 0 1 2] [--kinds 9] [--steps 60]

An answer is right if the strategy is the kind's. GRPO as the recipe has it: groups of 8, advantages divided by their
standard deviation, one AdamW step a batch. Writes the accuracy of every step's samples to
``FOLDER/reference/{kinds}-{seed}.json``.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from task import chat, codec, make_planner, question

from verl_rsim.prompts import planner_messages

BATCH, GROUP, RATE, WEIGHT_DECAY, CLIP = 16, 8, 1e-3, 0.01, 1.0


def learn(planner: Path, seed: int, kinds: int, steps: int) -> list[float]:
    """Accuracy of each step's samples."""
    from transformers import AutoModelForCausalLM

    words = codec(planner)
    labels = torch.tensor(words.label_ids())
    model = AutoModelForCausalLM.from_pretrained(planner, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    source, accuracy = random.Random(100 + seed), []
    torch.manual_seed(seed)
    for _ in range(steps):
        asked = [question(source, kinds) for _ in range(BATCH)]
        prompts = torch.tensor([words.chat(planner_messages(chat(one))) for _, one in asked])
        log_probs = model(prompts).logits[:, -1, labels].log_softmax(-1)
        chosen = torch.multinomial(log_probs.detach().exp(), GROUP, replacement=True)
        rewards = (chosen == torch.tensor([[kind] for kind, _ in asked])).float()
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)
        (-log_probs.gather(1, chosen) * advantages).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        accuracy.append(rewards.mean().item())
    return accuracy


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    (asked.folder / "reference").mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        make_planner(planner := asked.folder / f"planner{seed}", seed)
        curve = learn(planner, seed, asked.kinds, asked.steps)
        (asked.folder / f"reference/{asked.kinds}-{seed}.json").write_text(json.dumps(curve))
        print(f"seed {seed}: " + " ".join(f"{value:.2f}" for value in curve[9::10]), flush=True)


if __name__ == "__main__":
    main()
