"""Measures the peak memory of a job: the sum of its processes' proportional set sizes, sampled every three seconds.

    VERL_PLATFORM=cpu python benchmarks/speed/job_memory.py verl-rsim train tiny rsim.schedule=joint

Runs the command, then prints the highest sum and its parts, largest first. Linux only. docs/preflight.md compares it
with the estimate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SAMPLE_SECONDS = 3.0
MARK = "RSIM_JOB_MEMORY"
"""Environment variable that all processes of the job inherit; identifies them."""
GIB = 2**20
"""A GiB in kB, the unit of /proc."""


def sample(mark: str) -> Counter[str]:
    """Returns the PSS in kB of all processes that inherited the mark, by name."""
    sizes: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (process / "environ").read_bytes():
                continue
            lines = (process / "smaps_rollup").read_text().splitlines()
            name = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:60]
        except OSError:  # the process has ended, or belongs to another user
            continue
        for line in lines:
            if line.startswith("Pss:"):
                sizes[name] += int(line.split()[1])
    return sizes


def main() -> None:
    """Runs the command and prints its peak."""
    job_id = f"{os.getpid()}-{time.time_ns()}"
    job = subprocess.Popen(sys.argv[1:], env=os.environ | {MARK: job_id})
    peak: Counter[str] = Counter()
    while job.poll() is None:
        sizes = sample(f"{MARK}={job_id}")
        peak = max(peak, sizes, key=Counter.total)
        time.sleep(SAMPLE_SECONDS)
    for name, size in peak.most_common():
        print(f"{size / GIB:6.2f} GiB  {name}")
    print(f"{peak.total() / GIB:6.2f} GiB  all, at the peak; exit code {job.returncode}")


if __name__ == "__main__":
    main()
