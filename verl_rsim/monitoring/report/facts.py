"""What a report shows, gathered from a run's metrics and its episodes; how it looks is not decided here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from verl_rsim.core.controls import ALONE, BASE_PLANNER, PLANNER, RANDOM, SELF_STRATEGIES
from verl_rsim.core.episode_record import EpisodeRecord
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report.stats import Tally
from verl_rsim.monitoring.run_summary import read_metrics
from verl_rsim.utils.errors import DataError

CONTROLS = (BASE_PLANNER, ALONE, SELF_STRATEGIES, RANDOM)
"""What the planner of an evaluation is compared with: the first of these that was played."""
MAX_POINTS = 400
"""A curve of more steps is drawn as means over neighbouring steps."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the steps.

    Attributes:
        label: what it is called.
        tone: whose colour it has: planner, reasoner, or s0 to s8 for a strategy.
        points: (step, value), ascending.
        sparse: measured now and then (a validation): its points are marked.
    """

    label: str
    tone: str
    points: tuple[tuple[float, float], ...]
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share axes."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """Consecutive steps in which the two policies had the same weights; 0 is not trained."""

    first: int
    last: int
    planner: float
    reasoner: float

    @property
    def label(self) -> str:
        """For people."""
        steps = f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"
        return f"{steps}: planner {self.planner:g}, reasoner {self.reasoner:g}"


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a step and the mean seconds it took."""

    name: str
    seconds: float


@dataclass(slots=True)
class Group:
    """The episodes of one kind at one step, or of one condition of an evaluation; of all kinds if it is "".

    Attributes:
        condition: of an evaluation, else "".
    """

    kind: str
    step: int
    condition: str = ""
    tally: Tally = field(default_factory=Tally)

    @property
    def label(self) -> str:
        """For people."""
        if not self.kind:
            return "all episodes"
        return f"evaluation, {self.condition}" if self.condition else f"{self.kind} at step {self.step}"


_ROLES = ("planner", "reasoner")
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    # title, (metric, label, tone); {role} stands for both roles, val- marks a validation
    ("Reward", (("{role}/reward", "{role}", "{role}"), ("val-{role}/reward", "{role}, validation", "{role}"))),
    ("Accuracy", (("reasoner/acc", "training", "reasoner"), ("val-reasoner/acc", "validation", "reasoner"))),
    ("Entropy (nats per token)", (("{role}/entropy", "{role}", "{role}"),)),
    ("Gradient norm", (("{role}/grad_norm", "{role}", "{role}"), ("shared/grad_norm", "shared", "reasoner"))),
    ("KL to the weights that sampled", (("{role}/ppo_kl", "{role}", "{role}"),
                                        ("shared/ppo_kl", "shared", "reasoner"))),
    ("Clipped share of tokens", (("{role}/pg_clipfrac", "{role}", "{role}"),
                                 ("shared/pg_clipfrac", "shared", "reasoner"))),
    ("Entropy of the strategies (nats)", (("strategy/entropy", "training", "planner"),
                                          ("val-strategy/entropy", "validation", "planner"))),
    ("Turns per answer", (("rsim/turns", "training", "planner"), ("val-rsim/turns", "validation", "planner"))),
    ("Tokens per step", (("rsim/step_tokens", "training", "reasoner"),
                       ("val-rsim/step_tokens", "validation", "reasoner"))),
    ("Questions that teach nothing (share)", (("{role}/zero_groups", "{role}", "{role}"),)),
    ("Obedience of the reasoner", (("strategy/obedience", "training", "reasoner"),
                                   ("val-strategy/obedience", "validation", "reasoner"))),
    ("Cut off by a token limit (share)", (("rsim/truncated", "training", "reasoner"),
                                          ("val-rsim/truncated", "validation", "reasoner"))),
)  # fmt: skip


@dataclass(slots=True)
class Facts:
    """All a report shows, but for the episodes themselves.

    Attributes:
        title: name of the run.
        steps: the metrics of each step, merged, ascending.
        groups: episodes by kind, step and condition.
        overall: all episodes.
    """

    title: str
    steps: list[dict[str, Any]]
    groups: dict[tuple[str, int, str], Group] = field(default_factory=dict)
    overall: Tally = field(default_factory=Tally)

    def add(self, record: EpisodeRecord) -> None:
        """Count an episode."""
        key = (record.kind, record.step, record.condition)
        self.groups.setdefault(key, Group(*key)).tally.add(record)
        self.overall.add(record)

    @property
    def is_evaluation(self) -> bool:
        """Whether the episodes are those of ``verl-rsim eval``, which trains nothing."""
        return bool(self.groups) and all(group.kind == "evaluation" for group in self.groups.values())

    @property
    def pair_title(self) -> str:
        """What :meth:`pair` is."""
        return "Control and planner" if self.is_evaluation else "Before and after"

    def pair(self) -> tuple[Group, Group] | None:
        """What is compared: the first and the last step of the validations, else of training; of an evaluation a
        control and the planner. None if there are no two.
        """
        if self.is_evaluation:
            by_condition = {group.condition: group for group in self.groups.values()}
            control = next((name for name in CONTROLS if name in by_condition), None)
            return (by_condition[control], by_condition[PLANNER]) if control and PLANNER in by_condition else None
        for kind in ("validation", "train"):
            groups = sorted((g for g in self.groups.values() if g.kind == kind), key=lambda g: g.step)
            if len(groups) > 1:
                return groups[0], groups[-1]
        return None

    def studied(self) -> Group:
        """Whose strategies are counted: all episodes; of an evaluation the planner's, if it has one."""
        planner = self.groups.get(("evaluation", 0, PLANNER))
        return planner if planner and self.is_evaluation else Group("", 0, tally=self.overall)

    def panels(self) -> list[Panel]:
        """The training curves of which there is anything."""
        found = []
        for title, wanted in _PANELS:
            curves = [
                self._curve(*(text.format(role=role) for text in entry))
                for entry in wanted
                for role in (_ROLES if "{role}" in entry[0] else ("",))
            ]
            if kept := tuple(curve for curve in curves if curve.points):
                found.append(Panel(title, kept))
        return found

    def shares(self) -> Panel | None:
        """Share of each strategy among the turns of training, over the steps."""
        curves = [self._curve(f"strategy/{s.name}", s.title, f"s{i}") for i, s in enumerate(STRATEGIES)]
        return Panel("Share of the turns", tuple(curves)) if all(curve.points for curve in curves) else None

    def bands(self) -> list[Band]:
        """The stages of training."""
        found: list[Band] = []
        for step in self.steps:
            if "planner/weight" not in step or "reasoner/weight" not in step:
                continue
            weights = (step["planner/weight"], step["reasoner/weight"])
            first = step["step"]
            if found and (found[-1].planner, found[-1].reasoner) == weights:
                first = found.pop().first
            found.append(Band(first, step["step"], *weights))
        return found

    def alarms(self) -> str | None:
        """The alarms and the steps at which they were on, for people; None if no alarm was configured."""
        names = sorted({key for step in self.steps for key in step if key.startswith("alarm/")})
        if not names:
            return None
        on = {name: [step["step"] for step in self.steps if step.get(name)] for name in names}
        said = [f"{name.removeprefix('alarm/')} at {_spans(steps)}" for name, steps in on.items() if steps]
        return "; ".join(said) or "none"

    def phases(self) -> list[Phase]:
        """Where the time of a step goes, longest first; without the step as a whole."""
        names = {key for step in self.steps for key in step if key.startswith("timing_s/")} - {"timing_s/step"}
        training = [step for step in self.steps if "timing_s/step" in step]
        phases = [
            Phase(name.removeprefix("timing_s/"), fmean(step.get(name, 0.0) for step in training))
            for name in names
            if training
        ]
        return sorted(phases, key=lambda phase: -phase.seconds)

    def _curve(self, metric: str, label: str, tone: str) -> Curve:
        points = [(step["step"], step[metric]) for step in self.steps if isinstance(step.get(metric), int | float)]
        return Curve(label, tone, tuple(_thinned(points)), metric.startswith("val-"))


def _spans(steps: Sequence[int]) -> str:
    """Ascending steps in words: neighbours as a span."""
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][-1] + 1:
            spans[-1][1:] = [step]
        else:
            spans.append([step])
    return f"step{'s' if len(steps) > 1 else ''} " + ", ".join(" to ".join(map(str, span)) for span in spans)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // MAX_POINTS) or 1
    pieces = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(step for step, _ in piece), fmean(value for _, value in piece)) for piece in pieces]


def load_steps(path: Path) -> list[dict[str, Any]]:
    """The metrics of a file, one dictionary a step, ascending.

    Raises:
        DataError: no such file, or nothing in it.
    """
    steps: dict[int, dict[str, Any]] = {}
    for record in read_metrics(path):
        steps.setdefault(record["step"], {}).update(record)
    return [steps[step] for step in sorted(steps)]


def find_metrics(run_dir: Path, run: str, home: Path) -> Path:
    """The metrics file of a run: in its folder, else where ``verl-rsim train`` and verl's file logger put it.

    Args:
        run_dir: ``trainer.default_local_dir``.
        run: ``{project}/{experiment}``, as the episodes say it; "" if there are none.
        home: ``$RSIM_HOME``.

    Raises:
        DataError: it is in none of these places, or more than one could be meant.
    """
    roots = [home / "metrics", run_dir.resolve().parent.parent / "metrics", Path.cwd()]
    if root := os.environ.get("VERL_FILE_LOGGER_ROOT"):
        roots.insert(0, Path(root).expanduser())
    patterns = [(run_dir, "*.jsonl"), *((root, f"{run or '*/' + run_dir.resolve().name}.jsonl") for root in roots)]
    for folder, pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{folder} holds {len(found)} files {pattern}; say which one with --metrics FILE.jsonl")
    looked = ", ".join(str(folder / pattern) for folder, pattern in patterns)
    raise DataError(f"{run_dir}: found no metrics file; name it with --metrics FILE.jsonl (looked for {looked})")
