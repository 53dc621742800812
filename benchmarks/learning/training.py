"""A training run on the task of task.py through the whole stack, by controlled.yaml."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from task import Taught, make_planner, make_reasoner, write_questions

from verl_rsim.monitoring.run_summary import read_metrics
from verl_rsim.training.launch import run, train_command

RECIPE, ALONE = (Path(__file__).with_name(name) for name in ("controlled.yaml", "alone.yaml"))
COMMAND = (sys.executable, "-m", "verl_rsim")
ACCURACY = "val-core/controlled/acc/mean@1"


@dataclass(frozen=True, slots=True)
class Run:
    """What is trained.

    Attributes:
        seed: of the planner's weights, the data's order and the samples.
        kinds: of questions, 1 to 9.
        turns: 1 or 2.
        steps: of training.
        skill: of the taught reasoner (:class:`task.Taught`).
        alone: train the reasoner without a planner, through stock verl.
        overrides: of the recipe, in hydra's syntax.
    """

    seed: int = 0
    kinds: int = 9
    turns: int = 1
    steps: int = 60
    skill: float = 1.0
    alone: bool = False
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = (f"{name}{getattr(self, name)}" for name in ("kinds", "turns", "steps", "seed"))
        said = [*([f"skill{self.skill}"] if self.skill < 1 else []), *(["alone"] if self.alone else [])]
        return "-".join([*named, *said, *(override.replace("/", "_") for override in self.overrides)])

    def task(self, folder: Path) -> Path:
        """Where its questions and its reasoner lie."""
        return folder / f"kinds{self.kinds}"

    def planner(self, folder: Path) -> Path:
        """The planner before training."""
        return folder / f"planner{self.seed}"

    def reasoner(self, folder: Path) -> Path:
        """The taught reasoner."""
        return self.task(folder) / f"reasoner{self.turns}{'' if self.skill == 1 else f'-skill{self.skill}'}"

    def checkpoints(self, folder: Path) -> Path:
        """What training saves."""
        return folder / "runs" / str(self)


def train(folder: Path, asked: Run) -> list[dict]:
    """Train a planner before a taught reasoner, frozen unless an override says otherwise; or that reasoner alone.

    Args:
        folder: gets models, questions, metrics; what is there already of the models is used.
        asked: the run.

    Returns:
        Its metrics, a dictionary for each logged step.

    Raises:
        RuntimeError: the job failed.
    """
    task, planner, reasoner = asked.task(folder), asked.planner(folder), asked.reasoner(folder)
    make_planner(planner, asked.seed)
    make_reasoner(reasoner, planner, Taught(asked.kinds, asked.turns, asked.skill))
    write_questions(task, asked.kinds)
    told = {
        "task": task,
        "actor_rollout_ref.model.path": reasoner,
        "data.seed": asked.seed,
        "trainer.total_training_steps": asked.steps,
        "trainer.default_local_dir": f"'{asked.checkpoints(folder)}'",
    }
    if not asked.alone:
        told |= {"planner.model.path": planner, "rsim.max_turns": asked.turns, "rsim.seed": asked.seed}
    overrides = [*(f"{key}={value}" for key, value in told.items()), *asked.overrides]
    return job(ALONE if asked.alone else RECIPE, overrides, folder / "metrics" / f"{asked}.jsonl")


def job(recipe: Path, overrides: list[str], metrics: Path) -> list[dict]:
    """Train by a recipe, on a CPU.

    Args:
        recipe: its file.
        overrides: of it, in hydra's syntax.
        metrics: gets the metrics; what is there is removed.

    Returns:
        The metrics, a dictionary for each logged step.

    Raises:
        RuntimeError: the job failed.
    """
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.unlink(missing_ok=True)
    command = train_command(str(recipe), overrides)
    if status := run(command, {"VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(metrics)}):
        raise RuntimeError(f"the job {metrics.stem} ended with exit status {status}; see above")
    return read_metrics(metrics)


def transfer(matrix: dict, out: Path) -> int:
    """Play a matrix of planners, reasoners and data (``verl-rsim transfer``) into a folder; the exit status.

    The matrix is written beside the folder, as YAML.
    """
    path = out.with_name(f"{out.name}.yaml")
    path.write_text(yaml.safe_dump(matrix, sort_keys=False))
    return run([*COMMAND, "transfer", str(path), "--out", str(out)], {"VERL_PLATFORM": "cpu"})


def curve(steps: list[dict]) -> dict[int, float]:
    """Accuracy on the test questions by step; an oracle's is 1."""
    return {step["step"]: step[ACCURACY] for step in steps if ACCURACY in step}
