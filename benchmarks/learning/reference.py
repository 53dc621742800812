"""Trains the same planner on the same task in plain torch, without verl, vLLM or a reasoner, as a reference curve.

    python benchmarks/learning/reference.py FOLDER [--seeds 0 1 2] [--kinds 9] [--turns 1] [--steps 60] [--group 8]
                                       [--entropy 0]

An answer is right if the strategies are those of the question's kind. The update is the recipe's GRPO: groups of 8,
advantages divided by their standard deviation, one AdamW step per batch. Writes the accuracy of every step's samples to
``FOLDER/reference/{kinds}-{turns}-{group}-{entropy}-{seed}.json``.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from task import chat, codec, make_planner, random_question, right_strategies
from torch.nn.utils.rnn import pad_sequence

from verl_rsim.core.prompts import CUE, OBSERVATION, Codec, planner_messages
from verl_rsim.core.strategies import TERMINATION, strategy_index
from verl_rsim.data.question import Question

BATCH, GROUP, LEARNING_RATE, WEIGHT_DECAY, CLIP = 16, 8, 1e-3, 0.01, 1.0


def learn(
    planner: Path, seed: int, kinds: int, turns: int, steps: int, group: int = GROUP, entropy_coeff: float = 0.0
) -> list[float]:
    """Trains a planner and returns the accuracy of each step's samples."""
    from transformers import AutoModelForCausalLM

    planner_codec = codec(planner)
    model = AutoModelForCausalLM.from_pretrained(planner, dtype=torch.float32, trust_remote_code=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rng, accuracy = random.Random(100 + seed), []
    torch.manual_seed(seed)
    for _ in range(steps):
        questions = []
        for _ in range(BATCH):
            questions += [random_question(rng, kinds)] * group
        log_probs, entropies, rewards = play(model, planner_codec, questions, turns)
        grouped = rewards.view(BATCH, group)
        centered = grouped - grouped.mean(1, keepdim=True)
        advantages = (centered / (grouped.std(1, keepdim=True) + 1e-6)).flatten()
        chosen = torch.cat([of_turn * advantages[rows] for rows, of_turn in log_probs])
        (-chosen.mean() - entropy_coeff * torch.cat(entropies).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        accuracy.append(rewards.mean().item())
    return accuracy


def play(
    model: torch.nn.Module, planner_codec: Codec, questions: list[tuple[int, Question]], turns: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[torch.Tensor], torch.Tensor]:
    """Samples an episode for each question; the reasoner's step says if all strategies so far are right.

    Returns:
        For each turn, the episodes that have it and the log-probs of their choices; for each turn, the entropies of
        the choices; the reward of each episode.
    """
    labels = torch.tensor(planner_codec.label_ids())
    contexts = [list(planner_codec.chat(planner_messages(chat(question)), begin=CUE)) for _, question in questions]
    right, playing, log_probs = torch.ones(len(questions)), torch.arange(len(questions)), []
    entropies = []
    for turn in range(turns):
        if not len(playing):
            break
        read = [tuple(contexts[row]) for row in playing]
        # Episodes of one question share their context: each distinct one goes through the model once.
        distinct = {context: index for index, context in enumerate(dict.fromkeys(read))}
        # Padded on the right, where the causal mask hides the padding.
        ids = pad_sequence([torch.tensor(context) for context in distinct], batch_first=True)
        ends = torch.tensor([len(context) - 1 for context in distinct])
        logits = model(ids).logits[torch.arange(len(ends)), ends][:, labels]
        choice = logits.log_softmax(-1)[[distinct[context] for context in read]]
        chosen = torch.multinomial(choice.detach().exp(), 1)
        entropies.append(-(choice.exp() * choice).sum(-1))
        log_probs.append((playing, choice.gather(1, chosen)[:, 0]))
        unfinished = []
        for row, strategy in zip(playing.tolist(), chosen[:, 0].tolist(), strict=True):
            right[row] *= strategy == right_strategies(questions[row][0], turns)[turn]
            if strategy != strategy_index(TERMINATION):
                observation = OBSERVATION.format(step="Yes." if right[row] else "No.")
                contexts[row] += [int(labels[strategy]), *planner_codec.encode(observation)]
                unfinished.append(row)
            elif turn < turns - 1:
                right[row] = 0.0  # terminated before the last turn
        playing = torch.tensor(unfinished, dtype=torch.long)
    return log_probs, entropies, right


def main() -> None:
    """Trains one planner per seed and writes its curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--group", type=int, default=GROUP, help="episodes per question and step")
    parser.add_argument("--entropy", type=float, default=0.0, help="coefficient of the entropy bonus (entropy_coeff)")
    options = parser.parse_args()
    (options.folder / "reference").mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        planner = options.folder / f"planner{seed}"
        make_planner(planner, seed)
        curve = learn(
            planner,
            seed,
            kinds=options.kinds,
            turns=options.turns,
            steps=options.steps,
            group=options.group,
            entropy_coeff=options.entropy,
        )
        name = f"{options.kinds}-{options.turns}-{options.group}-{options.entropy:g}-{seed}"
        (options.folder / f"reference/{name}.json").write_text(json.dumps(curve))
        print(f"seed {seed}: " + " ".join(f"{value:.2f}" for value in curve[9::10]), flush=True)


if __name__ == "__main__":
    main()
