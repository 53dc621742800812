"""Writes the table and the figure of docs/learning.md from the results of run.py and reference.py.

    python benchmarks/learning/page.py FOLDER [--figure docs/images/learning.png]

Rows of runs that are not in FOLDER stay, and so does the text outside the two marks of the page. The figure shows the
runs in FOLDER only. Needs matplotlib (extra ``report``).
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

from verl_rsim.monitoring.metrics_file import read_metrics

PAGE = Path(__file__).parents[2] / "docs/learning.md"
NAME = re.compile(r"kinds(\d)-turns(\d)-steps(\d+)-seed(\d+)-?(.*)")
HEAD = ("kinds", "turns", "seed", "changed", "accuracy before", "after", "steps", "to 0.9", "seconds a step")
LABELS = {
    "actor_rollout_ref.actor.optim.lr=": "reasoner's rate ",
    "planner.actor.optim.lr=": "planner's rate ",
    "planner.actor.entropy_coeff=": "entropy bonus ",
    "rsim.train=[planner,reasoner]": "both",
    "rsim.": "",
    "skill0.5": "skill 0.5",
}
"""Parts of a run's name, and their words on the page."""


def label(changed: str) -> str:
    """Returns the page's description of a run's overrides."""
    for part, words in LABELS.items():
        changed = changed.replace(part, words)
    return ", ".join(re.split(r"-(?!\d)", changed))


def interval(accuracy: float, questions: int) -> str:
    """Returns an accuracy with its 95 % interval. Wilson's interval has a width even at accuracy 1."""
    z = 1.96
    middle = accuracy + z * z / 2 / questions
    width = z * math.sqrt(accuracy * (1 - accuracy) / questions + (z / 2 / questions) ** 2)
    low, high = ((middle + side * width) / (1 + z * z / questions) for side in (-1, 1))
    return f"{accuracy:.2f} ({low:.2f} to {high:.2f})"


def table(runs: dict[str, list[dict]], before: str) -> str:
    """Returns the page's table: a row for each run, and the rows of the table before for other runs."""
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
        rows.append([kinds, turns, seed, label(changed) or "-", *map(str, shown)])
    newest = {(row[0], row[1], int(row[6]), row[2], row[3]): row for row in rows}
    cells = [HEAD, ["---"] * len(HEAD), *(newest[run] for run in sorted(newest))]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def figure(path: Path, runs: dict[str, list[dict]], references: dict[str, list[float]]) -> None:
    """Draws the accuracy of every step's samples, one panel per number of kinds and turns and skill of the reasoner."""
    panels: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(dict)
    for name, steps in sorted(runs.items()):
        kinds, turns, _, seed, changed = NAME.fullmatch(name).groups()
        skill, overrides = re.fullmatch(r"(?:skill([\d.]+)-?)?(.*)", changed).groups()
        samples = [step.get("reasoner/acc", step.get("critic/score/mean")) for step in steps if step["step"]]
        panels[kinds, turns, skill or "1"][f"seed {seed} {label(overrides)}".strip()] = samples
    image = Figure(figsize=(5 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(image)
    for position, ((kinds, turns, skill), curves) in enumerate(sorted(panels.items(), reverse=True), 1):
        axes = image.add_subplot(1, len(panels), position)
        for name, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, label=name)
        prefix = f"{kinds}-{turns}-" if skill == "1" else "none"
        in_torch = [values for name, values in references.items() if name.startswith(prefix)]
        for index, values in enumerate(in_torch):
            axes.plot(range(1, len(values) + 1), values, ":", color="gray", label=None if index else "plain torch")
        axes.axhline((1 / 9) ** int(turns), color="black", linewidth=0.5)
        title = f"{kinds} kinds, {turns} turn{'s' * (turns != '1')}" + f", skill {skill}" * (skill != "1")
        axes.set(title=title, xlabel="step", ylim=(0, 1.02))
        axes.set_ylabel("accuracy of the samples")
        axes.legend(fontsize="x-small")
    image.savefig(path, dpi=110)


def main() -> None:
    """Updates the page and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figure", type=Path, help="write the curves to this PNG file")
    options = parser.parse_args()
    runs = {path.stem: read_metrics(path) for path in sorted((options.folder / "metrics").glob("*.jsonl"))}
    if options.figure:
        references = sorted((options.folder / "reference").glob("*.json"))
        figure(options.figure, runs, {path.stem: json.loads(path.read_text()) for path in references})
    marks = re.compile(r"(<!-- measured -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    PAGE.write_text(marks.sub(lambda match: match[1] + table(runs, match[2]) + match[3], PAGE.read_text()))


if __name__ == "__main__":
    main()
