"""Compares GRPO and rSIM on sums with a language model of 135M parameters.

    python benchmarks/learning/sums.py FOLDER [--steps 20] [--seed 0]

SmolLM2-135M-Instruct is planner and reasoner (separate weights). GRPO is stock verl's, with the same questions, samples
per step and tokens per sample. ``verl-rsim transfer`` then plays the untrained planner, the trained planner, no planner
and random choices with the reasoner before training, after GRPO and after rSIM. Tables and heat map go to
``FOLDER/transfer-*``, metrics to ``FOLDER/metrics``. Complete training is not repeated. Needs 20 GiB of memory.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch
from training import ALONE, RECIPE, job, transfer

from verl_rsim.data.prepare_models import prepare_smollm2
from verl_rsim.data.question import Question
from verl_rsim.data.rows import write_rows
from verl_rsim.data.verl_row import verl_row
from verl_rsim.training.checkpoint.merge_shards import merge
from verl_rsim.training.checkpoint.store import FOLDERS

LARGEST = 20
"""Largest number of a sum; the smallest is 1."""
TEST_QUESTIONS = 100
"""Questions for the test; the others are for training."""
INSTRUCTION = "Reply with the answer alone, in \\boxed{}."
TURNS, STEP_TOKENS = 2, 32
COMMON = {
    "data.train_batch_size": 4,
    "data.max_prompt_length": 64,
    "actor_rollout_ref.actor.optim.lr": 1e-5,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 768,
    "actor_rollout_ref.actor.fsdp_config.reshard_after_forward": "false",
    "actor_rollout_ref.rollout.n": 4,
    "actor_rollout_ref.rollout.temperature": 0.7,
    "trainer.val_before_train": "false",
    "trainer.test_freq": -1,
    "trainer.save_freq": "${trainer.total_training_steps}",
}
GRPO = {
    "data.max_response_length": TURNS * STEP_TOKENS,
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 768,
}
RSIM = {
    "data.max_response_length": TURNS * STEP_TOKENS + 48,  # room for the instructions
    "planner.model.enable_gradient_checkpointing": "true",  # without it the two models need more than 24 GiB
    "planner.actor.optim.lr": 1e-5,
    "planner.actor.ppo_max_token_len_per_gpu": 768,
    "planner.actor.fsdp_config.reshard_after_forward": "false",
    "planner.rollout.prompt_length": 320,
    "rsim.train": "[planner,reasoner]",
    "rsim.lambda": 0.5,
    "rsim.max_turns": TURNS,
    "rsim.max_step_tokens": STEP_TOKENS,
    "rsim.max_answer_tokens": STEP_TOKENS,
}


def write_questions(folder: Path) -> None:
    """Writes every sum of two numbers once, into the training or the test questions."""
    numbers = range(1, LARGEST + 1)
    sums = []
    for left in numbers:
        sums += [Question(f"What is {left} + {right}?", str(left + right)) for right in numbers]
    random.Random(0).shuffle(sums)
    for split, questions in (("test", sums[:TEST_QUESTIONS]), ("train", sums[TEST_QUESTIONS:])):
        rows = [verl_row(one, "sums", split, index, INSTRUCTION) for index, one in enumerate(questions)]
        write_rows(folder / f"{split}.parquet", rows)


def train_policies(folder: Path, name: str, recipe: Path, settings: dict, roles: tuple[str, ...]) -> dict[str, Path]:
    """Trains unless the checkpoint exists; returns each role's policy as a Hugging Face folder."""
    saved, steps = folder / "runs" / name, settings["trainer.total_training_steps"]
    checkpoint = saved / f"global_step_{steps}"
    if not checkpoint.is_dir():
        overrides = settings | {"trainer.default_local_dir": saved}
        job(recipe, [f"{key}={value}" for key, value in overrides.items()], folder / "metrics" / f"{name}.jsonl")
    policies = {role: folder / "trained" / name / role for role in roles}
    for role, policy in policies.items():
        if not policy.is_dir():
            merge(checkpoint / FOLDERS[role], policy, torch.float32)
    return policies


def main() -> int:
    """Trains both ways, runs the transfer, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.folder.absolute()
    model, suffix = folder / "smollm2", f"steps{options.steps}-seed{options.seed}"
    prepare_smollm2(model)
    write_questions(folder)
    settings = COMMON | {
        "task": folder,
        "actor_rollout_ref.model.path": model,
        "data.seed": options.seed,
        "trainer.total_training_steps": options.steps,
    }
    grpo = train_policies(folder, f"grpo-{suffix}", ALONE, settings | GRPO, ("reasoner",))
    rsim_settings = RSIM | {"planner.model.path": model, "rsim.seed": options.seed}
    rsim = train_policies(folder, f"rsim-{suffix}", RECIPE, settings | rsim_settings, ("planner", "reasoner"))
    matrix = {
        "planners": {"untrained": str(model), "trained": str(rsim["planner"])},
        "reasoners": {"base": str(model), "grpo": str(grpo["reasoner"]), "rsim": str(rsim["reasoner"])},
        "datasets": {"sums": str(folder / "test.parquet")},
        "controls": ["alone", "random"],
        "rules": {"max_turns": TURNS, "max_step_tokens": STEP_TOKENS, "max_answer_tokens": STEP_TOKENS},
    }
    return transfer(matrix, folder / f"transfer-{suffix}")


if __name__ == "__main__":
    sys.exit(main())
