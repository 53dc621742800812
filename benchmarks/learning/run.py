"""Trains planners through the whole stack on the task of task.py, one run per seed, and prints their accuracy.

    python benchmarks/learning/run.py FOLDER [--seeds 0 1 2] [--kinds 9] [--turns 1] [--steps 60] [--skill 1] [--alone]
                                 [hydra overrides]

Prints the accuracy on the test questions by step, for each seed; an oracle has 1. Metrics go to ``FOLDER/metrics``; a
seed with complete metrics is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import Run, curve, train

from verl_rsim.monitoring.metrics_file import read_metrics


def main() -> None:
    """Trains the missing runs and prints the accuracy of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--turns", type=int, choices=[1, 2], default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--skill", type=float, default=1.0, help="chance of a right answer after right strategies")
    parser.add_argument("--alone", action="store_true", help="train the reasoner without a planner")
    options, overrides = parser.parse_known_args()
    folder = options.folder.absolute()
    for seed in options.seeds:
        run = Run(
            seed=seed,
            kinds=options.kinds,
            turns=options.turns,
            steps=options.steps,
            skill=options.skill,
            alone=options.alone,
            overrides=tuple(overrides),
        )
        metrics = folder / "metrics" / f"{run}.jsonl"
        done = metrics.is_file() and options.steps in curve(read_metrics(metrics))
        steps = read_metrics(metrics) if done else train(folder, run)
        points = [f"{accuracy:.2f} at {step}" for step, accuracy in curve(steps).items()]
        print(f"{run}: {', '.join(points)}", flush=True)


if __name__ == "__main__":
    main()
