"""Fakes the commands that a chain runs: writes the files that they would write, and records the calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from verl_rsim.core.controls import ALONE, PLANNER
from verl_rsim.evaluation.dataset import load_questions
from verl_rsim.evaluation.matrix import Matrix, read_matrix
from verl_rsim.evaluation.records import RECORDS
from verl_rsim.training.checkpoint.store import SavedState, finish, step_folder


class Killed(BaseException):
    """Raised to simulate the death of the chain's own process."""


class Commands:
    """Fakes :func:`verl_rsim.training.launch.run`.

    Attributes:
        seen: one word or two for each command: "train code", "export", "transfer before,code".
        overrides: overrides of each training command, by stage.
        fails: the command (as in ``seen``) that ends with an error.
        killed_at: the training command that dies after one training step.
        right: returns True if a state's answer to a question is right.
    """

    def __init__(self, right=lambda state, dataset, number: number % 2 == 0, fails="", killed_at=""):
        self.seen: list[str] = []
        self.overrides: dict[str, dict[str, str]] = {}
        self.matrices: list[Matrix] = []
        self.right, self.fails, self.killed_at = right, fails, killed_at

    def __call__(self, command, environment) -> int:
        if "verl.trainer.main_ppo" in command:
            given = dict(item.split("=", 1) for item in command if "=" in item)
            given = {key: value.strip("'") for key, value in given.items()}
            name = f"train {given['trainer.experiment_name']}"
            self.overrides[given["trainer.experiment_name"]] = given
            return self._do(name, lambda: self._train(name, given, Path(environment["VERL_FILE_LOGGER_PATH"])))
        if "export" in command:
            return self._do("export", lambda: self._export(Path(command[-1]), Path(command[-3])))
        matrix = read_matrix(Path(command[-3]))
        self.matrices.append(matrix)
        name = f"transfer {','.join(matrix.planners)}"
        return self._do(name, lambda: self._transfer(matrix, Path(command[-1])))

    def _do(self, name, act) -> int:
        self.seen.append(name)
        if name == self.fails:
            return 1
        act()
        return 0

    def _train(self, name, given, metrics: Path) -> None:
        root, steps = Path(given["trainer.default_local_dir"]), int(given["trainer.total_training_steps"])
        last = 1 if name == self.killed_at else steps
        step_folder(root, last).mkdir(parents=True)
        metrics.write_text(json.dumps({"step": last, "data": {"planner/weight": 1.0}}) + "\n")
        finish(root, SavedState(step=last, stage=0, trained=("planner",)), keep=None)
        if name == self.killed_at:
            raise Killed

    def _export(self, out: Path, checkpoint: Path) -> None:
        model = Path(self.overrides[checkpoint.parent.name]["planner.model.path"])
        shutil.copytree(model, out / "planner")
        (out / "planner/stage.json").write_text(checkpoint.parent.name)

    def _transfer(self, matrix: Matrix, out: Path) -> None:
        for dataset, source in matrix.datasets.items():
            questions = load_questions(source, matrix.settings.limit).questions
            for state in matrix.planners:
                self._record(out / "reasoner" / dataset / state, PLANNER, questions, state, dataset)
            self._record(out / "reasoner" / dataset / "controls", ALONE, questions, ALONE, dataset)

    def _record(self, cell: Path, condition: str, questions, state: str, dataset: str) -> None:
        cell.mkdir(parents=True, exist_ok=True)
        numbers = ("planner_tokens", "planner_read", "reasoner_tokens", "reasoner_read")
        seconds = ("planner_seconds", "reasoner_seconds", "seconds")
        lines = [
            json.dumps(
                {
                    "condition": condition,
                    "question": question.id,
                    "sample": 0,
                    "correct": float(self.right(state, dataset, number)),
                    "reason": "right",
                    "answer": None,
                    "stop": "termination",
                    "strategies": [],
                    "keywords": [],
                    "text": "",
                    **dict.fromkeys(numbers, 1),
                    **dict.fromkeys(seconds, 0.1),
                }
            )
            for number, question in enumerate(questions)
        ]
        (cell / RECORDS).write_text("\n".join(lines) + "\n")
