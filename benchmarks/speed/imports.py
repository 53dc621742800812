"""Measures what the plugin adds to ``import verl``, and how long ``verl-rsim --help`` takes.

    python benchmarks/speed/imports.py [ROUNDS]

Prints the CPU seconds of a whole process, which vary less than wall time on a busy machine. The commands run in turn.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "import verl, without plugins": (["-c", "import verl"], {"VERL_USE_EXTERNAL_PLUGINS": "none"}),
    "import verl": (["-c", "import verl"], {}),
    "verl-rsim --help": (["-m", "verl_rsim", "--help"], {}),
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Returns the CPU seconds of a Python process, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: str = "9") -> None:
    """Measures and prints the times."""
    for arguments, environment in COMMANDS.values():
        seconds(arguments, environment)
    measured = [{name: seconds(*command) for name, command in COMMANDS.items()} for _ in range(int(rounds))]
    for name in COMMANDS:
        print(f"{name:30} {statistics.median(times[name] for times in measured):6.2f} s")
    without, with_plugin, _ = COMMANDS
    ratios = sorted(times[with_plugin] / times[without] for times in measured)
    print(f"with the plugin / without: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
