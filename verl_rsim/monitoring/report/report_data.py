"""Gathers what a report shows from a run's metrics and episodes, independent of the format."""

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
from verl_rsim.monitoring.metrics_file import read_metrics
from verl_rsim.monitoring.report.stats import Tally
from verl_rsim.utils.errors import DataError

CONTROLS = (BASE_PLANNER, ALONE, SELF_STRATEGIES, RANDOM)
"""Controls in order of preference: a report compares the planner with the first one that the evaluation has."""
MAX_POINTS = 400
"""A curve with more steps is drawn as means over neighbouring steps."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Holds the values of a metric over the training steps.

    Attributes:
        label: Name in the legend.
        tone: Name of its colour: planner, reasoner, or s0 to s8 for a strategy.
        points: Pairs of step and value, in ascending order.
        sparse: True for a metric of some steps only (a validation); charts mark its points.
    """

    label: str
    tone: str
    points: tuple[tuple[float, float], ...]
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Holds curves that share axes."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class StageBand:
    """Describes consecutive training steps with the same weights of the two policies.

    Attributes:
        first: First training step.
        last: Last training step.
        planner: Weight of the planner's update; 0 if it is not trained.
        reasoner: Weight of the reasoner's update; 0 if it is not trained.
    """

    first: int
    last: int
    planner: float
    reasoner: float

    @property
    def label(self) -> str:
        """Returns the steps and weights in words."""
        steps = f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"
        return f"{steps}: planner {self.planner:g}, reasoner {self.reasoner:g}"


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """Holds the mean time of one phase of a training step, in seconds."""

    name: str
    seconds: float


@dataclass(slots=True)
class EpisodeGroup:
    """Counts the episodes of one kind at one training step, or of one condition of an evaluation.

    Attributes:
        kind: train, validation or evaluation; "" for all episodes.
        step: The training step.
        condition: The control condition of an evaluation, else "".
        tally: The counts.
    """

    kind: str
    step: int
    condition: str = ""
    tally: Tally = field(default_factory=Tally)

    @property
    def label(self) -> str:
        """Returns the name of the group in words."""
        if not self.kind:
            return "all episodes"
        return f"evaluation, {self.condition}" if self.condition else f"{self.kind} at step {self.step}"


_ROLES = ("planner", "reasoner")
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    # Title, then (metric, label, tone) of each curve. {role} stands for both roles; val- marks a validation.
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
class ReportData:
    """Holds all that a report shows, except for the episodes themselves.

    Attributes:
        title: Name of the run.
        steps: Merged metrics of each step, in ascending order.
        groups: Counts of episodes, by kind, step and condition.
        overall: Counts of all episodes.
        sources: Data sources of the episodes.
    """

    title: str
    steps: list[dict[str, Any]]
    groups: dict[tuple[str, int, str], EpisodeGroup] = field(default_factory=dict)
    overall: Tally = field(default_factory=Tally)
    sources: set[str] = field(default_factory=set)

    def add(self, record: EpisodeRecord) -> None:
        """Counts an episode."""
        key = (record.kind, record.step, record.condition)
        self.groups.setdefault(key, EpisodeGroup(*key)).tally.add(record)
        self.overall.add(record)
        self.sources.add(record.data_source)

    @property
    def is_evaluation(self) -> bool:
        """Returns True if all episodes come from an evaluation, which trains nothing."""
        return bool(self.groups) and all(group.kind == "evaluation" for group in self.groups.values())

    @property
    def comparison_title(self) -> str:
        """Returns the title for :meth:`compared_groups`."""
        return "Control and planner" if self.is_evaluation else "Before and after"

    def compared_groups(self) -> tuple[EpisodeGroup, EpisodeGroup] | None:
        """Returns the two groups that the report compares, or None if there are no two.

        For a training run these are the first and the last validation, or without validations the first and the last
        training step. For an evaluation they are a control and the planner.
        """
        if self.is_evaluation:
            by_condition = {group.condition: group for group in self.groups.values()}
            control = next((name for name in CONTROLS if name in by_condition), None)
            if control is None or PLANNER not in by_condition:
                return None
            return by_condition[control], by_condition[PLANNER]
        for kind in ("validation", "train"):
            groups = sorted((g for g in self.groups.values() if g.kind == kind), key=lambda group: group.step)
            if len(groups) > 1:
                return groups[0], groups[-1]
        return None

    def main_group(self) -> EpisodeGroup:
        """Returns the group whose strategies are counted: all episodes, or only the planner's of an evaluation."""
        planner = self.groups.get(("evaluation", 0, PLANNER))
        if planner is not None and self.is_evaluation:
            return planner
        return EpisodeGroup("", 0, tally=self.overall)

    def panels(self) -> list[Panel]:
        """Returns the training curves, without panels that have no data."""
        panels = []
        for title, entries in _PANELS:
            curves = []
            for entry in entries:
                for role in _ROLES if "{role}" in entry[0] else ("",):
                    metric, label, tone = (text.format(role=role) for text in entry)
                    curve = self.curve(metric, label, tone)
                    if curve.points:
                        curves.append(curve)
            if curves:
                panels.append(Panel(title, tuple(curves)))
        return panels

    def shares(self) -> Panel | None:
        """Returns each strategy's share of the turns over the training steps; None without these metrics."""
        curves = [
            self.curve(f"strategy/{strategy.name}", strategy.title, f"s{index}")
            for index, strategy in enumerate(STRATEGIES)
        ]
        return Panel("Share of the turns", tuple(curves)) if all(curve.points for curve in curves) else None

    def bands(self) -> list[StageBand]:
        """Returns the stages of training."""
        bands: list[StageBand] = []
        for step in self.steps:
            if "planner/weight" not in step or "reasoner/weight" not in step:
                continue
            weights = (step["planner/weight"], step["reasoner/weight"])
            first = step["step"]
            if bands and (bands[-1].planner, bands[-1].reasoner) == weights:
                first = bands.pop().first  # the same stage continues
            bands.append(StageBand(first, step["step"], *weights))
        return bands

    def alarms(self) -> str | None:
        """Returns the alarms and the steps at which they were on, in words; None if no alarm was configured."""
        names: set[str] = set()
        for step in self.steps:
            names.update(key for key in step if key.startswith("alarm/"))
        if not names:
            return None
        parts = []
        for name in sorted(names):
            steps = [step["step"] for step in self.steps if step.get(name)]
            if steps:
                parts.append(f"{name.removeprefix('alarm/')} at {_spans(steps)}")
        return "; ".join(parts) or "none"

    def phases(self) -> list[PhaseTime]:
        """Returns the mean time of each phase of a training step, longest first."""
        training = [step for step in self.steps if "timing_s/step" in step]
        if not training:
            return []
        names: set[str] = set()
        for step in self.steps:
            names.update(key for key in step if key.startswith("timing_s/"))
        names.discard("timing_s/step")
        phases = []
        for name in names:
            # A phase that only some steps have, such as a validation, counts 0 in the others.
            seconds = fmean(step.get(name, 0.0) for step in training)
            phases.append(PhaseTime(name.removeprefix("timing_s/"), seconds))
        return sorted(phases, key=lambda phase: -phase.seconds)

    def curve(self, metric: str, label: str, tone: str) -> Curve:
        """Returns the curve of a metric; it has no points if the run does not have the metric."""
        points = [(step["step"], step[metric]) for step in self.steps if isinstance(step.get(metric), int | float)]
        return Curve(label, tone, tuple(_thinned(points)), metric.startswith("val-"))


def _spans(steps: Sequence[int]) -> str:
    """Returns ascending steps in words, with consecutive ones as a span: "steps 2 to 4, 6"."""
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][-1] + 1:
            spans[-1][1:] = [step]
        else:
            spans.append([step])
    return f"step{'s' if len(steps) > 1 else ''} " + ", ".join(" to ".join(map(str, span)) for span in spans)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns at most :data:`MAX_POINTS` points, each the mean of neighbouring ones."""
    size = -(-len(points) // MAX_POINTS) or 1
    pieces = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(step for step, _ in piece), fmean(value for _, value in piece)) for piece in pieces]


def load_steps(path: Path) -> list[dict[str, Any]]:
    """Returns the metrics of a file, one dictionary per step, in ascending order.

    Raises:
        DataError: The file does not exist or holds no step.
    """
    steps: dict[int, dict[str, Any]] = {}
    for record in read_metrics(path):
        steps.setdefault(record["step"], {}).update(record)
    return [steps[step] for step in sorted(steps)]


def find_metrics(run_dir: Path, run: str, home: Path) -> Path:
    """Finds the metrics file of a run: in its folder, else where ``verl-rsim train`` or verl's file logger writes it.

    Args:
        run_dir: ``trainer.default_local_dir``.
        run: ``{project}/{experiment}``, as the episodes record it; "" if there are no episodes.
        home: ``$RSIM_HOME``.

    Raises:
        DataError: None of these places has a metrics file, or one has several.
    """
    roots = [home / "metrics", run_dir.resolve().parent.parent / "metrics", Path.cwd()]
    if root := os.environ.get("VERL_FILE_LOGGER_ROOT"):
        roots.insert(0, Path(root).expanduser())
    name = run or f"*/{run_dir.resolve().name}"
    patterns = [(run_dir, "*.jsonl"), *((root, f"{name}.jsonl") for root in roots)]
    for folder, pattern in patterns:
        files = sorted(folder.glob(pattern))
        if len(files) == 1:
            return files[0]
        if files:
            raise DataError(f"{folder} holds {len(files)} files {pattern}; say which one with --metrics FILE.jsonl")
    searched = ", ".join(str(folder / pattern) for folder, pattern in patterns)
    raise DataError(f"{run_dir}: found no metrics file; name it with --metrics FILE.jsonl (looked for {searched})")
