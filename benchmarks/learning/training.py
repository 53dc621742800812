"""Trains through the whole stack on the task of task.py, by the recipe controlled.yaml or alone.yaml."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from task import ReasonerSpec, make_planner, make_reasoner, write_questions

from verl_rsim.monitoring.metrics_file import read_metrics
from verl_rsim.training.launch import run, train_command

RECIPE = Path(__file__).with_name("controlled.yaml")
ALONE = Path(__file__).with_name("alone.yaml")
"""Recipe that trains the reasoner without a planner, through stock verl."""
COMMAND = (sys.executable, "-m", "verl_rsim")
ACCURACY = "val-core/controlled/acc/mean@1"


@dataclass(frozen=True, slots=True)
class Run:
    """Describes a training run; as a string it is the run's name.

    Attributes:
        seed: seed of the planner's weights, the order of the data and the samples.
        kinds: number of kinds of questions, 1 to 9.
        turns: turns of an episode, 1 or 2.
        steps: training steps.
        skill: skill of the taught reasoner (:class:`task.ReasonerSpec`).
        alone: train the reasoner without a planner, through stock verl.
        overrides: hydra overrides of the recipe.
    """

    seed: int = 0
    kinds: int = 9
    turns: int = 1
    steps: int = 60
    skill: float = 1.0
    alone: bool = False
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"kinds{self.kinds}", f"turns{self.turns}", f"steps{self.steps}", f"seed{self.seed}"]
        if self.skill < 1:
            parts.append(f"skill{self.skill}")
        if self.alone:
            parts.append("alone")
        parts += [override.replace("/", "_") for override in self.overrides]
        return "-".join(parts)

    def task(self, folder: Path) -> Path:
        """Returns the folder of the questions and the reasoner."""
        return folder / f"kinds{self.kinds}"

    def planner(self, folder: Path) -> Path:
        """Returns the folder of the planner before training."""
        return folder / f"planner{self.seed}"

    def reasoner(self, folder: Path) -> Path:
        """Returns the folder of the taught reasoner."""
        return self.task(folder) / f"reasoner{self.turns}{'' if self.skill == 1 else f'-skill{self.skill}'}"

    def checkpoints(self, folder: Path) -> Path:
        """Returns the folder of the run's checkpoints."""
        return folder / "runs" / str(self)


def train(folder: Path, config: Run) -> list[dict]:
    """Trains a planner with a taught reasoner, which is frozen unless an override names it; or that reasoner alone.

    Args:
        folder: folder of models, questions and metrics; models that exist are used again.
        config: the run.

    Returns:
        The metrics, one dictionary per logged step.

    Raises:
        RuntimeError: the job failed.
    """
    task, planner, reasoner = config.task(folder), config.planner(folder), config.reasoner(folder)
    make_planner(planner, config.seed)
    make_reasoner(reasoner, planner, ReasonerSpec(config.kinds, config.turns, config.skill))
    write_questions(task, config.kinds)
    settings = {
        "task": task,
        "actor_rollout_ref.model.path": reasoner,
        "data.seed": config.seed,
        "trainer.total_training_steps": config.steps,
        "trainer.default_local_dir": f"'{config.checkpoints(folder)}'",
    }
    if not config.alone:
        settings |= {"planner.model.path": planner, "rsim.max_turns": config.turns, "rsim.seed": config.seed}
    overrides = [*(f"{key}={value}" for key, value in settings.items()), *config.overrides]
    return job(ALONE if config.alone else RECIPE, overrides, folder / "metrics" / f"{config}.jsonl")


def job(recipe: Path, overrides: list[str], metrics: Path) -> list[dict]:
    """Runs a training job on the CPU.

    Args:
        recipe: file of the recipe.
        overrides: hydra overrides.
        metrics: file of the metrics; replaced if it exists.

    Returns:
        The metrics, one dictionary per logged step.

    Raises:
        RuntimeError: the job failed.
    """
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.unlink(missing_ok=True)
    command = train_command(str(recipe), overrides)
    status = run(command, {"VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(metrics)})
    if status:
        raise RuntimeError(f"the job {metrics.stem} ended with exit status {status}; see above")
    return read_metrics(metrics)


def transfer(matrix: dict, out: Path) -> int:
    """Runs ``verl-rsim transfer`` and returns its exit status; the matrix is written as YAML beside the folder."""
    path = out.with_name(f"{out.name}.yaml")
    path.write_text(yaml.safe_dump(matrix, sort_keys=False))
    return run([*COMMAND, "transfer", str(path), "--out", str(out)], {"VERL_PLATFORM": "cpu"})


def curve(steps: list[dict]) -> dict[int, float]:
    """Returns the accuracy on the test questions by step."""
    return {step["step"]: step[ACCURACY] for step in steps if ACCURACY in step}
