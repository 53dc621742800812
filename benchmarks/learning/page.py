"""Writes what run.py and reference.py left in a folder into docs/learning.md: its table and a figure.

    python benchmarks/learning/page.py FOLDER [--figure docs/learning.png]

The table's rows of runs that are not in the folder stay, and so does text outside the two marks of the page. A figure
is drawn if asked for, of the folder's runs alone. Needs matplotlib (extra ``report``).
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import defaultdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from task import NUMBERS
from training import curve

from verl_rsim.monitoring.run_summary import read_metrics

PAGE = Path(__file__).parents[2] / "docs/learning.md"
NAME = re.compile(r"kinds(\d)-turns(\d)-steps(\d+)-seed(\d+)-?(.*)")
HEAD = ("kinds", "turns", "seed", "changed", "accuracy before", "after", "steps", "to 0.9", "seconds a step")
WORDS = {
    "actor_rollout_ref.actor.optim.lr=": "reasoner's rate ",
    "planner.actor.optim.lr=": "planner's rate ",
    "planner.actor.entropy_coeff=": "entropy bonus ",
    "rsim.train=[planner,reasoner]": "both",
    "rsim.": "",
    "skill0.5": "skill 0.5",
}
"""What a run's name says, as the page says it."""


def said(changed: str) -> str:
    """What was changed in a run."""
    for part, words in WORDS.items():
        changed = changed.replace(part, words)
    return ", ".join(re.split(r"-(?!\d)", changed))


def interval(accuracy: float, questions: int) -> str:
    """An accuracy on so many questions with its 95 % interval (Wilson's: it has a width at 1, too)."""
    z = 1.96
    middle = accuracy + z * z / 2 / questions
    width = z * math.sqrt(accuracy * (1 - accuracy) / questions + (z / 2 / questions) ** 2)
    low, high = ((middle + side * width) / (1 + z * z / questions) for side in (-1, 1))
    return f"{accuracy:.2f} ({low:.2f} to {high:.2f})"


def table(runs: dict[str, list[dict]], before: str) -> str:
    """A row for each run, and those of the table before that are of other runs."""
    rows = [line.strip("| ").split(" | ") for line in before.splitlines()[2:]]
    for name, steps in runs.items():
        kinds, turns, _, seed, changed = NAME.fullmatch(name).groups()
        accuracy = curve(steps)
        last = max(accuracy)
        reached = next((str(step) for step, value in accuracy.items() if value >= 0.9), "not")
        seconds = sorted(step["timing_s/step"] for step in steps if "timing_s/step" in step)
        questions = NUMBERS * int(kinds)
        median = f"{seconds[len(seconds) // 2]:.1f}"
        shown = [interval(accuracy[0], questions), interval(accuracy[last], questions), last, reached, median]
        rows.append([kinds, turns, seed, said(changed) or "-", *map(str, shown)])
    newest = {(row[0], row[1], int(row[6]), row[2], row[3]): row for row in rows}
    cells = [HEAD, ["---"] * len(HEAD), *(newest[run] for run in sorted(newest))]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def figure(path: Path, runs: dict[str, list[dict]], references: dict[str, list[float]]) -> None:
    """Accuracy of every step's samples, a panel for each number of kinds and turns and each skill of the reasoner."""
    panels: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(dict)
    for name, steps in sorted(runs.items()):
        kinds, turns, _, seed, changed = NAME.fullmatch(name).groups()
        skill, told = re.fullmatch(r"(?:skill([\d.]+)-?)?(.*)", changed).groups()
        samples = [step.get("reasoner/acc", step.get("critic/score/mean")) for step in steps if step["step"]]
        panels[kinds, turns, skill or "1"][f"seed {seed} {said(told)}".strip()] = samples
    drawing = Figure(figsize=(5 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(drawing)
    for position, ((kinds, turns, skill), curves) in enumerate(sorted(panels.items(), reverse=True), 1):
        axes = drawing.add_subplot(1, len(panels), position)
        for label, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, label=label)
        alike = f"{kinds}-{turns}-" if skill == "1" else "none"
        plain = [values for name, values in references.items() if name.startswith(alike)]
        for index, values in enumerate(plain):
            axes.plot(range(1, len(values) + 1), values, ":", color="gray", label=None if index else "plain torch")
        axes.axhline((1 / 9) ** int(turns), color="black", linewidth=0.5)
        title = f"{kinds} kinds, {turns} turn{'s' * (turns != '1')}" + f", skill {skill}" * (skill != "1")
        axes.set(title=title, xlabel="step", ylim=(0, 1.02))
        axes.set_ylabel("accuracy of the samples")
        axes.legend(fontsize="x-small")
    drawing.savefig(path, dpi=110)


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figure", type=Path, help="gets the curves, a PNG")
    asked = parser.parse_args()
    runs = {path.stem: read_metrics(path) for path in sorted((asked.folder / "metrics").glob("*.jsonl"))}
    if asked.figure:
        references = sorted((asked.folder / "reference").glob("*.json"))
        figure(asked.figure, runs, {path.stem: json.loads(path.read_text()) for path in references})
    marks = re.compile(r"(<!-- measured -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    PAGE.write_text(marks.sub(lambda found: found[1] + table(runs, found[2]) + found[3], PAGE.read_text()))


if __name__ == "__main__":
    main()
