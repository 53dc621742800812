"""Evaluates the planners of run.py with a reasoner that they never saw, against all controls of the evaluation.

    python benchmarks/learning/transfer.py FOLDER [--seeds 0 1 2] [--kinds 9] [--steps 60]

The unseen reasoner has another architecture, depth, tokenizer and seed, and is taught the same task. ``verl-rsim
transfer`` plays the planners of the given seeds and an untrained one with both reasoners; tables and heat map go to
``FOLDER/transfer``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from task import ReasonerSpec, make_reasoner
from training import COMMAND, Run, transfer

from verl_rsim.training.launch import run


def main() -> int:
    """Exports the planners, runs the transfer, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60, help="training steps of the planners")
    options = parser.parse_args()
    folder = options.folder.absolute()
    runs = [Run(seed, options.kinds, steps=options.steps) for seed in options.seeds]
    task, untrained = runs[0].task(folder), runs[0].planner(folder)
    unseen = ReasonerSpec(options.kinds, family="qwen2", vocabulary=800, layers=3, seed=7)
    make_reasoner(task / "unseen", untrained, unseen)
    planners = {"untrained": str(untrained)}
    for trained in runs:
        target = folder / "exported" / str(trained)
        planners[f"seed_{trained.seed}"] = str(target / "planner")
        export = [*COMMAND, "export", str(trained.checkpoints(folder)), "--out", str(target)]
        if not target.is_dir():
            status = run(export)
            if status:
                return status
    matrix = {
        "planners": planners,
        "reasoners": {"seen": str(runs[0].reasoner(folder)), "unseen": str(task / "unseen")},
        "datasets": {"controlled": str(task / "test.parquet")},
        "controls": "all",
        "rules": {"max_turns": 1, "max_step_tokens": 16, "max_answer_tokens": 16},
    }
    return transfer(matrix, folder / "transfer")


if __name__ == "__main__":
    sys.exit(main())
