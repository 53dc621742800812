"""Does a planner that run.py trained help a reasoner that it never saw? Against all controls of the evaluation, paired.

    python benchmarks/learning/transfer.py FOLDER [--seeds 0 1 2] [--kinds 9] [--steps 60]

The unseen reasoner has another architecture, depth, tokenizer and seed, and was taught the same task. The planners of
the given seeds and an untrained one are put before both by ``verl-rsim transfer``; tables and heat map lie in
``FOLDER/transfer``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from task import Taught, make_reasoner
from training import COMMAND, Run, transfer

from verl_rsim.training.launch import run


def main() -> int:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60, help="that the planners were trained")
    asked = parser.parse_args()
    folder = asked.folder.absolute()
    runs = [Run(seed, asked.kinds, steps=asked.steps) for seed in asked.seeds]
    task, untrained = runs[0].task(folder), runs[0].planner(folder)
    unseen = Taught(asked.kinds, family="qwen2", vocabulary=800, layers=3, seed=7)
    make_reasoner(task / "unseen", untrained, unseen)
    planners = {"untrained": str(untrained)}
    for trained in runs:
        target = folder / "exported" / str(trained)
        planners[f"seed_{trained.seed}"] = str(target / "planner")
        export = [*COMMAND, "export", str(trained.checkpoints(folder)), "--out", str(target)]
        if not target.is_dir() and (status := run(export)):
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
