"""Does anything grow? Trains the recipe ``tiny`` for many steps and watches what its processes hold.

    python benchmarks/soak/run.py FOLDER [--steps 200] [hydra overrides]

Samples every few seconds: number, memory (PSS) and open files of processes by kind, shared memory; after each step:
TransferQueue's keys, the trainer's references to Ray's objects, what its object store holds. Prints the median of the
second fifth of the steps and of the last fifth, and how far the servers' log-probs were from the trainer's at most.
Exit status 1 if something grew, or if they differ. Saves and validates every ten steps. A folder in which a run is
complete is read, not trained again. Linux only; about twenty-five minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from support.job import Job, shared_memory  # noqa: E402

from verl_rsim.utils.artifact_folders import home  # noqa: E402

SECONDS = 5.0
STEP_SECONDS = 60
"""A step takes no longer; all of the job's start, ten times as long."""
MEMORY, FILES, PROCESSES = "memory, MiB", "open files", "processes"
GAP = 1e-4
"""Of a log-prob in float32 on both sides."""
GROWTH = {
    MEMORY: (0.05, 50),
    FILES: (0.0, 5),
    "shared memory, MiB": (0.05, 20),
    "bytes in Ray's object store": (0.05, 2**20),
}
"""What noise may be: a share, and an amount that says nothing (a process may be sampled while it saves)."""
OVERRIDES = (
    "rsim.schedule=joint",
    "rsim.alarms.ppo_kl={action:off}",
    "trainer.val_before_train=false",
    "trainer.total_epochs=1000",
    "trainer.save_freq=10",
    "trainer.test_freq=10",
    "trainer.max_actor_ckpt_to_keep=2",
)


def held(job: Job) -> Counter[str]:
    """Memory and open files of the job by kind of process, and shared memory of all."""
    found: Counter[str] = Counter()
    for process in job.processes():
        with contextlib.suppress(psutil.Error, OSError):
            name = process.cmdline()[0].split("/")[-1].split(" ")[0].partition(".")[0]  # Ray appends the method at work
            found[f"{MEMORY}: {name}"] += process.memory_full_info().pss / 2**20
            found[f"{FILES}: {name}"] += process.num_fds()
            found[f"{PROCESSES}: {name}"] += 1
    found["shared memory, MiB"] = shared_memory() / 2**20
    return found


def train(folder: Path, steps: int, overrides: list[str]) -> None:
    """Write ``samples.jsonl`` and ``steps.jsonl``."""
    told = {"RSIM_SOAK": str(folder / "steps.jsonl"), "RAY_task_events_max_num_task_in_gcs": "1000"}  # else it grows
    for name in ("samples.jsonl", "steps.jsonl", "job.jsonl"):
        (folder / name).unlink(missing_ok=True)
    overrides = [*OVERRIDES, f"trainer.total_training_steps={steps}", *overrides]
    job = Job(folder, home(), "job", *overrides, environment=told, inside=HERE)
    end = time.monotonic() + STEP_SECONDS * (steps + 10)
    try:
        with (folder / "samples.jsonl").open("w") as file:
            while job.process.poll() is None and time.monotonic() < end:
                file.write(json.dumps({"step": max(job.metrics(), default=0), **held(job)}) + "\n")
                time.sleep(SECONDS)
        if status := job.wait(1):
            raise SystemExit(f"the job ended with exit status {status}:\n{job.log()[-3000:]}")
    finally:
        job.stop()


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What was held, with the step; 0 when no process of a kind was there."""
    found = {}
    for name in ("samples.jsonl", "steps.jsonl"):
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for quantity in set().union(*records) - {"step"}:
            found[quantity] = [(record["step"], record.get(quantity, 0)) for record in records]
    return found


def gaps(folder: Path) -> dict[str, float]:
    """Over all steps, how far a log-prob of a role's server was from the trainer's at most."""
    records = [json.loads(line)["data"] for line in (folder / "job.jsonl").read_text().splitlines()]
    names = [f"{role}/log_prob_gap/max" for role in ("planner", "reasoner")]
    return {name: max(record[name] for record in records if name in record) for name in names}


def grew(quantity: str, early: float, late: float) -> bool:
    """Beyond what may be noise."""
    share, amount = GROWTH.get(quantity.split(":")[0], (0.0, 0.0))
    return late - early > max(share * early, amount)


def main() -> int:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    asked, overrides = parser.parse_known_args()
    folder, steps = asked.folder.absolute(), asked.steps
    folder.mkdir(parents=True, exist_ok=True)
    counted = folder / "steps.jsonl"
    if not counted.is_file() or len(counted.read_text().splitlines()) < steps:
        train(folder, steps, overrides)
    print(
        "| held | steps",
        f"{steps // 5} to {steps * 2 // 5} | {steps * 4 // 5} to {steps} | grew |\n| --- | --- | --- | --- |",
    )
    failed = False
    for quantity, values in sorted(series(folder).items()):
        early = [value for step, value in values if steps // 5 <= step < steps * 2 // 5]
        late = [value for step, value in values if steps * 4 // 5 <= step]
        first, last = statistics.median(early), statistics.median(late)
        if not first and not last:  # processes of a moment
            continue
        failed |= (more := grew(quantity, first, last))
        print(f"| {quantity} | {first:.0f} | {last:.0f} | {'yes' if more else 'no'} |")
    for name, gap in gaps(folder).items():
        failed |= not gap <= GAP
        print(f"{name}: {gap:.1e} in {steps} steps")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
