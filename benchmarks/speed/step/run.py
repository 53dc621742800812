"""Compares a training step of rSIM with stock verl GRPO steps of its two models, on the same rows and tokens.

    python benchmarks/speed/step/run.py FOLDER [--recipe tiny] [--steps 12] [overrides of the recipe]

Trains the recipe with both policies and records every episode. Then stock verl trains each model alone, with the
recipe's model, learning rate, micro-batches and cache of that role, without a KL term. Its agent loop makes the same
calls with the same numbers of tokens, in rows of the same length.

Prints the seconds of each phase (median of the steps after the second), and the ratio of each rSIM step to the sum of
the stock steps on the same rows: median, lowest and highest. Runs three training jobs; a job with metrics in FOLDER is
not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_rsim.config.recipes import compose_recipe
from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Limits, StepEnd
from verl_rsim.core.episode_record import EpisodeRecord
from verl_rsim.core.prompts import OBSERVATION
from verl_rsim.core.strategies import strategy_index
from verl_rsim.data.question import Question
from verl_rsim.data.rows import write_rows
from verl_rsim.data.verl_row import verl_row
from verl_rsim.evaluation.models import load_codec
from verl_rsim.monitoring.episode_log import read_log
from verl_rsim.monitoring.metrics_file import read_metrics
from verl_rsim.training.launch import run, train_command
from verl_rsim.utils.artifact_folders import home

HERE = Path(__file__).parent
BLOCKS = {"planner": "planner", "reasoner": "actor_rollout_ref"}
SETTINGS = (
    "model.path",
    "model.use_remove_padding",
    "model.enable_gradient_checkpointing",
    "actor.optim.lr",
    "actor.fsdp_config.reshard_after_forward",
    "actor.use_dynamic_bsz",
    "actor.ppo_micro_batch_size_per_gpu",
    "actor.ppo_max_token_len_per_gpu",
    "rollout.log_prob_use_dynamic_bsz",
    "rollout.log_prob_micro_batch_size_per_gpu",
    "rollout.log_prob_max_token_len_per_gpu",
    "rollout.engine_kwargs.vllm.kv_cache_memory_bytes",
)
"""Keys of a role's block that its stock job takes over."""
WARM_UP_STEPS = 2
"""First steps, which are not counted."""
PHASES = ("step", "gen", "old_log_prob", "adv", "update", "update_actor", "update_weights")
STEP, ROLLOUT = "timing_s/step", "timing_s/gen"


def job(
    name: str, recipe: str, overrides: dict[str, Any], folder: Path, more: list[str]
) -> dict[int, dict[str, float]]:
    """Trains unless the metrics exist; returns the metrics of each step after the warm-up."""
    metrics = folder / f"{name}.jsonl"
    if not metrics.is_file():
        environment = {
            "VERL_FILE_LOGGER_PATH": f"{metrics}.part",  # a job that fails must not leave metrics that look complete
            "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
        }
        arguments = [f"{key}={value}" for key, value in overrides.items()] + more
        if run(train_command(recipe, arguments), environment):
            raise SystemExit(f"the {name} job failed; see above")
        os.replace(f"{metrics}.part", metrics)
    return {step["step"]: step for step in read_metrics(metrics) if step["step"] > WARM_UP_STEPS}


def call_shapes(episode: EpisodeRecord, dialogue: Dialogue) -> dict[str, dict[str, Any]]:
    """Returns, for each role, the prompt's ids and, per call, the given ids and the number of generated tokens."""
    prompts = dialogue.prompts([{"role": "user", "content": episode.question}])
    calls: dict[str, list[tuple[list[int], int]]] = {"planner": [], "reasoner": []}
    last = None
    for turn in episode.turns:
        observation = dialogue.planner.encode(OBSERVATION.format(step=last.text.strip())) if last else ()
        injected = dialogue.injected_ids(strategy_index(turn.strategy), StepEnd(last.end) if last else None)
        calls["planner"].append((list(observation), 1))
        calls["reasoner"].append((list(injected), turn.tokens))
        last = turn
    pairs = zip(("planner", "reasoner"), prompts, strict=True)
    return {role: {"prompt": list(prompt), "calls": calls[role]} for role, prompt in pairs}


def write_data(episodes: list[EpisodeRecord], recipe: DictConfig, folder: Path) -> None:
    """Writes the data of the stock jobs, in the order of the steps."""
    codecs = {role: load_codec(recipe[block].model.path, role, False)[0] for role, block in BLOCKS.items()}
    dialogue = Dialogue(codecs["planner"], codecs["reasoner"], Limits(1, 1, 1, 1, 1, 1, 1))
    rows = defaultdict(list)
    for episode in sorted(episodes, key=lambda episode: episode.step):
        question = Question(episode.question, episode.truth)
        for role, shape in call_shapes(episode, dialogue).items():
            row = verl_row(question, episode.data_source, "train", len(rows[role]), instruction="")
            row["extra_info"]["shape"] = json.dumps(shape)
            rows[role].append(row)
    for role, of_role in rows.items():
        write_rows(folder / f"{role}.parquet", of_role)


def stock_settings(recipe: DictConfig, role: str) -> dict[str, Any]:
    """Returns the settings that a role's stock job takes over from the recipe."""
    block = recipe[BLOCKS[role]]
    values = {f"actor_rollout_ref.{key}": OmegaConf.select(block, key) for key in SETTINGS}
    lengths = {f"data.max_{part}_length": block.rollout[f"{part}_length"] for part in ("prompt", "response")}
    return {key: "null" if value is None else value for key, value in (values | lengths).items()}


def ratios(jobs: dict[str, dict[int, dict[str, float]]], without: str | None = None) -> str:
    """Returns the median, lowest and highest ratio of an rSIM step to both stock steps.

    Args:
        jobs: metrics by job and step.
        without: name of a phase that is left out of all steps.
    """
    seconds: dict[str, dict[int, float]] = {}
    for name, steps in jobs.items():
        seconds[name] = {step: values[STEP] - (values[without] if without else 0) for step, values in steps.items()}
    values = [took / sum(seconds[role][step] for role in BLOCKS) for step, took in seconds["rSIM"].items()]
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def phase_medians(steps: list[dict[str, float]]) -> str:
    """Returns the median seconds of each phase."""
    prefix = "timing_s/"
    keys: set[str] = set()
    for step in steps:
        keys.update(key for key in step if key.startswith(prefix) and key.split("/")[-1] in PHASES)
    medians = {key: statistics.median(step[key] for step in steps) for key in sorted(keys)}
    return " ".join(f"{key.removeprefix(prefix)} {seconds:.2f}" for key, seconds in medians.items())


def main() -> None:
    """Runs the three jobs and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--steps", type=int, default=12)
    options, more = parser.parse_known_args()
    folder, steps = options.folder.absolute(), options.steps
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["VERL_PLATFORM"] = "cpu"
    os.environ.setdefault("RSIM_HOME", str(home()))
    rsim_settings = {
        "rsim.schedule": "joint",
        "rsim.episode_log.train_share": 1,
        "trainer.total_training_steps": steps,
        "trainer.total_epochs": 1000,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": -1,
        "trainer.default_local_dir": folder / "rsim",
    }
    recipe = compose_recipe(options.recipe, more)
    jobs = {"rSIM": job("rsim", options.recipe, rsim_settings, folder, more)}
    episodes = [episode for episode in read_log(folder / "rsim") if episode.kind == "train"]
    write_data(episodes, recipe, folder)
    for role in BLOCKS:
        rewards = {"planner": {"reward.reward_manager.name": "naive",
                               "reward.custom_reward_function.path": HERE / "replay.py"},
                   "reasoner": {"reward.reward_manager.name": "rsim_math"}}  # fmt: skip
        stock = {
            "data.train_files": folder / f"{role}.parquet",
            "data.train_batch_size": len(episodes) // steps,
            "actor_rollout_ref.rollout.agent.agent_loop_config_path": HERE / "agent_loop.yaml",
            "trainer.default_local_dir": folder / role,
            "trainer.experiment_name": role,
            **stock_settings(recipe, role),
            **rewards[role],
        }
        jobs[role] = job(role, str(HERE / "stock.yaml"), stock, folder, [])
    for name, by_step in jobs.items():
        print(name, phase_medians(list(by_step.values())))
    print(f"{len(episodes) // steps} episodes per step; rSIM step / both stock steps: {ratios(jobs)}")
    print(f"without their rollouts: {ratios(jobs, without=ROLLOUT)}")


if __name__ == "__main__":
    main()
