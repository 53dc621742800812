"""Does the planner learn what is to be learned? Trains it through the whole stack on the task of task.py, seed by seed.

    python tests/learning/run.py FOLDER [--seeds 0 1 2] [--steps 80] [--turns 1] [hydra overrides]

Prints and writes ``FOLDER/learning.json``: accuracy on the test questions by step, for each seed (an oracle has 1).
A seed that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from task import make_planner, make_reasoner, write_questions

from verl_rsim.launch import run, train_command
from verl_rsim.summary import read_metrics

RECIPE = Path(__file__).with_name("controlled.yaml")
ACCURACY = "val-core/controlled/acc/mean@1"


def train(folder: Path, seed: int, turns: int, steps: int, overrides: list[str]) -> dict[int, float]:
    """Train a planner of that seed; its accuracy by step."""
    name = f"turns{turns}-seed{seed}"
    planner, reasoner = folder / f"planner{seed}", folder / f"reasoner{turns}"
    make_planner(planner, seed)
    make_reasoner(reasoner, planner, turns)
    told = {
        "task": folder,
        "planner.model.path": planner,
        "actor_rollout_ref.model.path": reasoner,
        "rsim.max_turns": turns,
        "rsim.seed": seed,
        "data.seed": seed,
        "trainer.total_training_steps": steps,
        "trainer.experiment_name": name,
    }
    metrics = folder / f"metrics/learning/{name}.jsonl"
    metrics.unlink(missing_ok=True)
    command = train_command(str(RECIPE), [f"{key}={value}" for key, value in told.items()] + overrides)
    if status := run(command, {"VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_ROOT": str(folder / "metrics")}):
        raise SystemExit(f"the job of seed {seed} ended with exit status {status}; see above")
    return {step["step"]: step[ACCURACY] for step in read_metrics(metrics) if ACCURACY in step}


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    asked, overrides = parser.parse_known_args()
    folder = asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_questions(folder)
    results = folder / "learning.json"
    curves = json.loads(results.read_text()) if results.is_file() else {}
    for seed in asked.seeds:
        name = " ".join([f"turns={asked.turns} seed={seed} steps={asked.steps}", *overrides])
        if name not in curves:
            curves[name] = train(folder, seed, asked.turns, asked.steps, overrides)
            results.write_text(json.dumps(curves, indent=1))
        print(f"{name}: " + ", ".join(f"{accuracy:.2f} at {step}" for step, accuracy in curves[name].items()))


if __name__ == "__main__":
    main()
