"""Does the planner learn what is to be learned? Trains it through the whole stack on the task of task.py, seed by seed.

    python benchmarks/learning/run.py FOLDER [--seeds 0 1 2] [--kinds 9] [--turns 1] [--steps 60] [--skill 1] [--alone]
                                 [hydra overrides]

Prints accuracy on the test questions by step, for each seed (an oracle has 1). Metrics lie in ``FOLDER/metrics``; a
seed that is there already is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import Run, curve, train

from verl_rsim.monitoring.run_summary import read_metrics


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--skill", type=float, default=1.0, help="of the reasoner, after the right strategies")
    parser.add_argument("--alone", action="store_true", help="train the reasoner without a planner")
    asked, overrides = parser.parse_known_args()
    folder = asked.folder.absolute()
    for seed in asked.seeds:
        run = Run(seed, asked.kinds, asked.turns, asked.steps, asked.skill, asked.alone, tuple(overrides))
        metrics = folder / "metrics" / f"{run}.jsonl"
        done = metrics.is_file() and asked.steps in curve(read_metrics(metrics))
        steps = read_metrics(metrics) if done else train(folder, run)
        print(
            f"{run}: " + ", ".join(f"{accuracy:.2f} at {step}" for step, accuracy in curve(steps).items()), flush=True
        )


if __name__ == "__main__":
    main()
