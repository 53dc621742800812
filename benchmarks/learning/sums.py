"""A language model of 135M parameters on sums: before training, after GRPO, after rSIM, and with rSIM's planner alone.

    python benchmarks/learning/sums.py FOLDER [--steps 20] [--seed 0]

SmolLM2-135M-Instruct is planner and reasoner (separate weights). GRPO is stock verl's, on the same questions, with as
many samples a step and as many tokens a sample. Then ``verl-rsim transfer`` puts the planner before and after training,
nobody, and choices at random before the reasoner as it was, after GRPO and after rSIM; tables and heat map lie in
``FOLDER/transfer-*``, metrics in ``FOLDER/metrics``. Training that is complete is not repeated. Needs 20 GiB of memory.
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

LARGEST, TEST = 20, 100
"""Numbers added, from 1; questions for the test, none of which is trained on."""
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
    "planner.model.enable_gradient_checkpointing": "true",  # else two such models take more than 24 GiB
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
    """Every sum of two numbers once, for training or for the test."""
    numbers = range(1, LARGEST + 1)
    sums = [Question(f"What is {left} + {right}?", str(left + right)) for left in numbers for right in numbers]
    random.Random(0).shuffle(sums)
    for split, asked in (("test", sums[:TEST]), ("train", sums[TEST:])):
        rows = [verl_row(one, "sums", split, index, INSTRUCTION) for index, one in enumerate(asked)]
        write_rows(folder / f"{split}.parquet", rows)


def trained(folder: Path, name: str, recipe: Path, told: dict, roles: tuple[str, ...]) -> dict[str, Path]:
    """Train, unless that is done; each role's policy as a Hugging Face folder."""
    saved, steps = folder / "runs" / name, told["trainer.total_training_steps"]
    checkpoint = saved / f"global_step_{steps}"
    if not checkpoint.is_dir():
        overrides = told | {"trainer.default_local_dir": saved}
        job(recipe, [f"{key}={value}" for key, value in overrides.items()], folder / "metrics" / f"{name}.jsonl")
    policies = {role: folder / "trained" / name / role for role in roles}
    for role, policy in policies.items():
        if not policy.is_dir():
            merge(checkpoint / FOLDERS[role], policy, torch.float32)
    return policies


def main() -> int:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    model, last = folder / "smollm2", f"steps{asked.steps}-seed{asked.seed}"
    prepare_smollm2(model)
    write_questions(folder)
    told = COMMON | {
        "task": folder,
        "actor_rollout_ref.model.path": model,
        "data.seed": asked.seed,
        "trainer.total_training_steps": asked.steps,
    }
    grpo = trained(folder, f"grpo-{last}", ALONE, told | GRPO, ("reasoner",))
    own = RSIM | {"planner.model.path": model, "rsim.seed": asked.seed}
    rsim = trained(folder, f"rsim-{last}", RECIPE, told | own, ("planner", "reasoner"))
    matrix = {
        "planners": {"untrained": str(model), "trained": str(rsim["planner"])},
        "reasoners": {"base": str(model), "grpo": str(grpo["reasoner"]), "rsim": str(rsim["reasoner"])},
        "datasets": {"sums": str(folder / "test.parquet")},
        "controls": ["alone", "random"],
        "rules": {"max_turns": TURNS, "max_step_tokens": STEP_TOKENS, "max_answer_tokens": STEP_TOKENS},
    }
    return transfer(matrix, folder / f"transfer-{last}")


if __name__ == "__main__":
    sys.exit(main())
