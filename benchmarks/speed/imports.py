"""What the plugin adds to ``import verl``, and how long ``verl-rsim --help`` takes, in one run.

    python benchmarks/speed/imports.py [ROUNDS]

Processor seconds of a whole process each (they vary less than wall time on a busy machine), in turn.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

WAYS = {
    "import verl, without plugins": (["-c", "import verl"], {"VERL_USE_EXTERNAL_PLUGINS": "none"}),
    "import verl": (["-c", "import verl"], {}),
    "verl-rsim --help": (["-m", "verl_rsim", "--help"], {}),
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Of processor time that a Python process takes, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: str = "9") -> None:
    """Measure and print."""
    for arguments, environment in WAYS.values():
        seconds(arguments, environment)
    times = [{name: seconds(*way) for name, way in WAYS.items()} for _ in range(int(rounds))]
    for name in WAYS:
        print(f"{name:30} {statistics.median(each[name] for each in times):6.2f} s")
    without, with_plugin, _ = WAYS
    ratios = sorted(each[with_plugin] / each[without] for each in times)
    print(f"with the plugin / without: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
