"""What the curve should look like: the same planner, task and update in plain torch, without verl, vLLM or a reasoner.

    python benchmarks/learning/reference.py FOLDER [--seeds 0 1 2] [--kinds 9] [--turns 1] [--steps 60] [--group 8]
                                       [--entropy 0]

An answer is right if the strategies are the kind's. GRPO as the recipe has it: groups of 8, advantages divided by their
standard deviation, one AdamW step a batch. Writes the accuracy of every step's samples to
``FOLDER/reference/{kinds}-{turns}-{group}-{entropy}-{seed}.json``.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from task import chat, codec, drawn, make_planner, wanted
from torch.nn.utils.rnn import pad_sequence

from verl_rsim.core.prompts import OBSERVATION, Codec, planner_messages
from verl_rsim.core.strategies import TERMINATION, strategy_index
from verl_rsim.data.question import Question

BATCH, GROUP, RATE, WEIGHT_DECAY, CLIP = 16, 8, 1e-3, 0.01, 1.0


def learn(
    planner: Path, seed: int, kinds: int, turns: int, steps: int, group: int = GROUP, bonus: float = 0.0
) -> list[float]:
    """Accuracy of each step's samples; ``bonus`` is the coefficient of the choices' entropy."""
    from transformers import AutoModelForCausalLM

    words = codec(planner)
    model = AutoModelForCausalLM.from_pretrained(planner, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    source, accuracy = random.Random(100 + seed), []
    torch.manual_seed(seed)
    for _ in range(steps):
        asked = [drawn(source, kinds) for _ in range(BATCH)]
        log_probs, entropies, rewards = play(model, words, [one for one in asked for _ in range(group)], turns)
        grouped = rewards.view(BATCH, group)
        centred = grouped - grouped.mean(1, keepdim=True)
        advantages = (centred / (grouped.std(1, keepdim=True) + 1e-6)).flatten()
        chosen = torch.cat([one * advantages[rows] for rows, one in log_probs])
        (-chosen.mean() - bonus * torch.cat(entropies).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        accuracy.append(rewards.mean().item())
    return accuracy


def play(
    model, words: Codec, asked: list[tuple[int, Question]], turns: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[torch.Tensor], torch.Tensor]:
    """Sample the strategies of an episode for each question; the reasoner says whether they have been right so far.

    Returns:
        For each turn, the episodes that had it and their choices' log-probs; for each, their choices' entropies;
        each episode's reward.
    """
    labels = torch.tensor(words.label_ids())
    contexts = [list(words.chat(planner_messages(chat(one)))) for _, one in asked]
    right, playing, log_probs = torch.ones(len(asked)), torch.arange(len(asked)), []
    entropies = []
    for turn in range(turns):
        if not len(playing):
            break
        read = [tuple(contexts[row]) for row in playing]
        distinct = {context: index for index, context in enumerate(dict.fromkeys(read))}  # each is read once
        # Padded on the right: the causal mask hides it.
        ids = pad_sequence([torch.tensor(context) for context in distinct], batch_first=True)
        ends = torch.tensor([len(context) - 1 for context in distinct])
        logits = model(ids).logits[torch.arange(len(ends)), ends][:, labels]
        choice = logits.log_softmax(-1)[[distinct[context] for context in read]]
        chosen = torch.multinomial(choice.detach().exp(), 1)
        entropies.append(-(choice.exp() * choice).sum(-1))
        log_probs.append((playing, choice.gather(1, chosen)[:, 0]))
        going = []
        for row, strategy in zip(playing.tolist(), chosen[:, 0].tolist(), strict=True):
            right[row] *= strategy == wanted(asked[row][0], turns)[turn]
            if strategy != strategy_index(TERMINATION):
                said = OBSERVATION.format(step="Yes." if right[row] else "No.")
                contexts[row] += [int(labels[strategy]), *words.encode(said)]
                going.append(row)
            elif turn < turns - 1:
                right[row] = 0.0  # too early to be asked for
        playing = torch.tensor(going, dtype=torch.long)
    return log_probs, entropies, right


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--group", type=int, default=GROUP, help="episodes of a question in a step")
    parser.add_argument("--entropy", type=float, default=0.0, help="coefficient of its bonus (entropy_coeff)")
    asked = parser.parse_args()
    (asked.folder / "reference").mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        make_planner(planner := asked.folder / f"planner{seed}", seed)
        curve = learn(planner, seed, asked.kinds, asked.turns, asked.steps, asked.group, asked.entropy)
        name = f"{asked.kinds}-{asked.turns}-{asked.group}-{asked.entropy:g}-{seed}"
        (asked.folder / f"reference/{name}.json").write_text(json.dumps(curve))
        print(f"seed {seed}: " + " ".join(f"{value:.2f}" for value in curve[9::10]), flush=True)


if __name__ == "__main__":
    main()
