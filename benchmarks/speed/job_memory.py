"""The memory of a job at its peak: the proportional set sizes of all its processes, sampled every three seconds.

    VERL_PLATFORM=cpu python benchmarks/speed/job_memory.py verl-rsim train tiny rsim.schedule=joint

Runs the command, then prints the highest sum and what it was made of, largest first. Linux only. docs/preflight.md
compares it with the estimate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

SECONDS = 3.0
MARK = "RSIM_JOB_MEMORY"
GIB = 2**20
"""In kB, which /proc counts in."""


def held(mark: str) -> Counter[str]:
    """PSS in kB of every process that inherited the mark, by name."""
    found: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (process / "environ").read_bytes():
                continue
            lines = (process / "smaps_rollup").read_text().splitlines()
            name = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:60]
        except OSError:  # ended in between
            continue
        found[name] += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return found


def main() -> None:
    """Run the command and report its peak."""
    value = f"{os.getpid()}-{time.time_ns()}"
    job = subprocess.Popen(sys.argv[1:], env=os.environ | {MARK: value})
    peak: Counter[str] = Counter()
    while job.poll() is None:
        now = held(f"{MARK}={value}")
        peak = max(peak, now, key=Counter.total)
        time.sleep(SECONDS)
    for name, size in peak.most_common():
        print(f"{size / GIB:6.2f} GiB  {name}")
    print(f"{peak.total() / GIB:6.2f} GiB  all, at the peak; exit code {job.returncode}")


if __name__ == "__main__":
    main()
