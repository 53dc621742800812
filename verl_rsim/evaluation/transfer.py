"""Runs ``verl-rsim transfer``: plays the cells of a matrix one after the other, and resumes after a kill.

A finished cell is not played again, an unfinished one continues. If a cell fails, its error goes to ``errors.json`` and
the other cells are played; the next start tries the failed cell again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from verl_rsim.core.controls import PLANNER
from verl_rsim.core.policy_description import TRAINED_BOUNDS, PolicyDescription
from verl_rsim.evaluation.config import ModelConfig, build_condition_player
from verl_rsim.evaluation.dataset import EvaluationDataset, check_sandbox, load_questions
from verl_rsim.evaluation.manifest import open_manifest
from verl_rsim.evaluation.matrix import Matrix, MatrixCell, cells, with_trained_rules
from verl_rsim.evaluation.models import AnyModel, Planner, Reasoner
from verl_rsim.evaluation.records import read_records
from verl_rsim.evaluation.runner import evaluate
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import RsimError

ERRORS = "errors.json"


async def run_transfer(matrix: Matrix, folder: Path, console: Console) -> dict[str, str]:
    """Plays all episodes that the folder lacks.

    Args:
        matrix: planners, reasoners, datasets and settings.
        folder: destination of the cells' folders.
        console: shows the progress.

    Returns:
        Error messages of failed cells, by the cell's path.

    Raises:
        ConfigError, DataError, EngineError: the folder holds another evaluation, a dataset cannot be used, or the rules
            are not known.
    """
    matrix, resolved = with_trained_rules(matrix, _describe(matrix))
    resolved.show(console)
    scorer = Scorer(matrix.settings.scoring, matrix.settings.fusion_url)
    try:
        settings = matrix.settings
        data = {
            name: load_questions(source, settings.limit, settings.scoring) for name, source in matrix.datasets.items()
        }
        for dataset in data.values():
            check_sandbox(dataset, scorer)
        open_manifest(
            folder, "transfer", {"draw": dataclasses.asdict(matrix.settings.sampling)}, dataclasses.asdict(matrix)
        )
        return await _Transfer(matrix, data, scorer, folder, console).run()
    finally:
        scorer.close()


def _describe(matrix: Matrix) -> dict[str, PolicyDescription | None]:
    """Returns how each planner was trained.

    A planner that cannot be found has no say, and its cells fail later, if the rules are known without it.

    Raises:
        ConfigError, EngineError: a planner cannot be found, and neither the file nor another planner gives the rules.
    """
    described: dict[str, PolicyDescription | None] = {}
    errors: list[RsimError] = []
    for name, planner in matrix.planners.items():
        try:
            described[name] = planner.describe(Planner.role)
        except RsimError as error:
            errors.append(error)
    rules_are_known = any(described.values()) or set(TRAINED_BOUNDS) <= set(matrix.given_rules)
    if errors and not rules_are_known:
        raise errors[0]
    return described


class _Transfer:
    """Plays the cells of a matrix, and keeps models and errors of this start."""

    def __init__(
        self, matrix: Matrix, data: Mapping[str, EvaluationDataset], scorer: Scorer, folder: Path, console: Console
    ):
        self.matrix, self.data, self.scorer, self.folder, self.console = matrix, data, scorer, folder, console
        self.errors: dict[str, str] = {}
        self.reasoners = self._load(Reasoner, matrix.reasoners)
        self.planners = self._load(Planner, matrix.planners)

    def _load(self, cls: type[AnyModel], models: Mapping[str, ModelConfig]) -> dict[str, AnyModel | RsimError]:
        """Reads every model's tokenizer; errors are printed before the first weights take minutes to load."""
        loaded: dict[str, AnyModel | RsimError] = {}
        for name, model in models.items():
            try:
                loaded[name] = model.load(cls)
            except RsimError as error:
                loaded[name] = error
                self.console.print(f"{cls.role} {name}: {error}", style="red", highlight=False)
        return loaded

    async def run(self) -> dict[str, str]:
        """Plays all cells; a model is loaded for the first cell that needs it and freed after the last one."""
        plan = cells(self.matrix)
        missing = {cell: self._missing_answers(cell) for cell in plan}
        began, played, number = time.monotonic(), 0, 0
        for reasoner, reasoner_cells in itertools.groupby(plan, lambda cell: cell.reasoner):
            for planner, planner_cells in itertools.groupby(reasoner_cells, lambda cell: cell.planner):
                for cell in planner_cells:
                    number += 1
                    await self._play(cell, f"cell {number}/{len(plan)} {cell.path}")
                    played += missing.pop(cell)
                    left = (time.monotonic() - began) / max(1, played) * sum(missing.values())
                    if played and missing:
                        self.console.print(f"about {timedelta(seconds=round(left))} left", highlight=False)
                await _close(self.planners.get(planner or ""))
            await _close(self.reasoners[reasoner])
        return self.errors

    async def _play(self, cell: MatrixCell, title: str) -> None:
        reasoner, planner = self.reasoners[cell.reasoner], self.planners.get(cell.planner or "")
        try:
            for model in (reasoner, planner):
                if isinstance(model, RsimError):
                    raise model
            controls = self.matrix.controls if cell.planner is None else ()
            settings = self.matrix.settings
            player = build_condition_player(
                reasoner,  # type: ignore[arg-type]
                {PLANNER: planner} if planner else {},  # type: ignore[dict-item]
                controls,
                settings,
                engines_at_once=2,  # the reasoner stays loaded from cell to cell and must leave room for a planner
            )
            dataset, folder = self.data[cell.dataset], self.folder / cell.path
            await evaluate(
                player,
                dataset,
                self.scorer,
                folder,
                self.console,
                samples=settings.samples,
                concurrency=settings.concurrency,
                title=title,
            )
        except Exception as error:  # noqa: BLE001 - other cells took hours and must go on; the error is shown, and the exit code is 1
            message = str(error) if isinstance(error, RsimError) else "".join(traceback.format_exception(error))
            self.errors[cell.path] = message
            self.console.print(f"{title} failed: {message}", style="red", highlight=False, markup=False)
            for model in (reasoner, planner):
                await _close(model)  # the next cell starts a dead engine again
        write_atomically(self.folder / ERRORS, json.dumps(self.errors, indent=1))

    def _missing_answers(self, cell: MatrixCell) -> int:
        """Returns the number of answers that the cell's records lack."""
        conditions = 1 if cell.planner else len(self.matrix.controls)
        total = conditions * len(self.data[cell.dataset].questions) * self.matrix.settings.samples
        try:
            return max(0, total - len(read_records(self.folder / cell.path)))
        except RsimError:
            return total


async def _close(model: Planner | Reasoner | RsimError | None) -> None:
    if model is not None and not isinstance(model, RsimError):
        await model.close()
