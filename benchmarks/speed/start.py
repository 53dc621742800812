"""Measures what a job's start costs: processor seconds of each process until the first rollout has ended.

    VERL_PLATFORM=cpu python benchmarks/speed/start.py tiny

Processor seconds depend less than the clock on what else the machine does. Needs the recipe's data and models.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import psutil

FIRST_ROLLOUT = "validation at step 0"


class _Usage:
    """Collects the processor seconds of a job's processes, by process and last known title."""

    def __init__(self, job: psutil.Process):
        self.job = job
        self.seconds: dict[int, float] = {}
        self.titles: dict[int, str] = {}

    def update(self) -> None:
        """Reads the processes that are alive."""
        for process in [self.job, *self.job.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self.seconds[process.pid] = times.user + times.system
                self.titles[process.pid] = _title(process)
            except psutil.Error:
                continue  # it has ended

    def print(self) -> None:
        """Prints the processes that took a second or more, and the sum of all."""
        for pid, seconds in sorted(self.seconds.items()):
            if seconds >= 1:
                print(f"{seconds:7.1f}  {self.titles[pid]}")
        print(f"{sum(self.seconds.values()):7.1f}  all processes")


def _title(process: psutil.Process) -> str:
    """Returns the title of a process of Ray or vLLM, else the end of its command."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith(("ray::", "VLLM::")):
        return words[0].split(".")[0].strip()
    return " ".join(" ".join(words[:3]).split())[-60:]


def main(recipe: str, *overrides: str) -> None:
    command = ["verl-rsim", "train", recipe, "rsim.console=summary", *overrides]
    begin = time.monotonic()
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    usage, played = _Usage(psutil.Process(job.pid)), threading.Event()

    def follow() -> None:
        assert job.stdout is not None
        for line in job.stdout:
            print(f"{time.monotonic() - begin:7.1f}  {line.rstrip()[:120]}", flush=True)
            if FIRST_ROLLOUT in line:
                played.set()

    threading.Thread(target=follow, daemon=True).start()
    while job.poll() is None and not played.wait(0.5):
        usage.update()
    usage.print()
    sys.exit(job.wait())


if __name__ == "__main__":
    main(*sys.argv[1:])
