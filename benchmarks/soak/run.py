"""Trains the recipe ``tiny`` for many steps and checks that its processes do not leak memory, files or objects.

    python benchmarks/soak/run.py FOLDER [--steps 200] [hydra overrides]

Sampled every few seconds: number, memory (PSS) and open files of processes by kind, and shared memory. Counted after
each training step: TransferQueue's keys, the trainer's references to Ray objects, and the bytes in Ray's object store.
Prints the median over the second fifth of the steps and over the last fifth, and the largest difference between the
servers' log-probs and the trainer's. Exit status 1 if a quantity grew or the log-probs differ. The job saves and
validates every ten steps. A complete run in FOLDER is evaluated again without training. Linux only; takes about 25
minutes on two cores.
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

SAMPLE_SECONDS = 5.0
"""Seconds between two samples."""
STEP_SECONDS = 60
"""Longest time of a step; the job's start may take ten times as long."""
MEMORY, FILES, PROCESSES = "memory, MiB", "open files", "processes"
MAX_GAP = 1e-4
"""Largest difference of a log-prob; both sides compute in float32."""
MAX_GROWTH = {
    MEMORY: (0.05, 50),
    FILES: (0.0, 5),
    "shared memory, MiB": (0.05, 20),
    "bytes in Ray's object store": (0.05, 2**20),
}
"""Growth that counts as noise: a share, or an absolute amount (a process may be sampled while it saves)."""
OVERRIDES = (
    "rsim.schedule=joint",
    "rsim.alarms.ppo_kl={action:off}",
    "trainer.val_before_train=false",
    "trainer.total_epochs=1000",
    "trainer.save_freq=10",
    "trainer.test_freq=10",
    "trainer.max_actor_ckpt_to_keep=2",
)


def sample(job: Job) -> Counter[str]:
    """Returns the job's memory and open files by kind of process, and all shared memory."""
    totals: Counter[str] = Counter()
    for process in job.processes():
        with contextlib.suppress(psutil.Error, OSError):
            name = process.cmdline()[0].split("/")[-1].split(" ")[0].partition(".")[0]  # Ray appends the method at work
            totals[f"{MEMORY}: {name}"] += process.memory_full_info().pss / 2**20
            totals[f"{FILES}: {name}"] += process.num_fds()
            totals[f"{PROCESSES}: {name}"] += 1
    totals["shared memory, MiB"] = shared_memory() / 2**20
    return totals


def train(folder: Path, steps: int, overrides: list[str]) -> None:
    """Runs the job and writes ``samples.jsonl`` and ``steps.jsonl``."""
    # Ray keeps the events of up to 100,000 tasks, which would look like a leak for all of the run.
    environment = {"RSIM_SOAK": str(folder / "steps.jsonl"), "RAY_task_events_max_num_task_in_gcs": "1000"}
    for name in ("samples.jsonl", "steps.jsonl", "job.jsonl"):
        (folder / name).unlink(missing_ok=True)
    overrides = [*OVERRIDES, f"trainer.total_training_steps={steps}", *overrides]
    job = Job(folder, home(), "job", *overrides, environment=environment, hooks=HERE)
    end = time.monotonic() + STEP_SECONDS * (steps + 10)
    try:
        with (folder / "samples.jsonl").open("w") as file:
            while job.process.poll() is None and time.monotonic() < end:
                file.write(json.dumps({"step": max(job.metrics(), default=0), **sample(job)}) + "\n")
                time.sleep(SAMPLE_SECONDS)
        if status := job.wait(1):
            raise SystemExit(f"the job ended with exit status {status}:\n{job.log()[-3000:]}")
    finally:
        job.stop()


def series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns each quantity as (step, value) pairs; 0 while no process of a kind existed."""
    values = {}
    for name in ("samples.jsonl", "steps.jsonl"):
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for quantity in set().union(*records) - {"step"}:
            values[quantity] = [(record["step"], record.get(quantity, 0)) for record in records]
    return values


def gaps(folder: Path) -> dict[str, float]:
    """Returns, for each role, the largest difference between a log-prob of the server and of the trainer."""
    records = [json.loads(line)["data"] for line in (folder / "job.jsonl").read_text().splitlines()]
    names = [f"{role}/log_prob_gap/max" for role in ("planner", "reasoner")]
    return {name: max(record[name] for record in records if name in record) for name in names}


def grew(quantity: str, early: float, late: float) -> bool:
    """Returns True if a quantity grew by more than noise."""
    share, amount = MAX_GROWTH.get(quantity.split(":")[0], (0.0, 0.0))
    return late - early > max(share * early, amount)


def main() -> int:
    """Trains if necessary, prints the table, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    options, overrides = parser.parse_known_args()
    folder, steps = options.folder.absolute(), options.steps
    folder.mkdir(parents=True, exist_ok=True)
    counts = folder / "steps.jsonl"
    if not counts.is_file() or len(counts.read_text().splitlines()) < steps:
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
        if not first and not last:  # short-lived processes
            continue
        has_grown = grew(quantity, first, last)
        failed |= has_grown
        print(f"| {quantity} | {first:.0f} | {last:.0f} | {'yes' if has_grown else 'no'} |")
    for name, gap in gaps(folder).items():
        failed |= not gap <= MAX_GAP
        print(f"{name}: {gap:.1e} in {steps} steps")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
