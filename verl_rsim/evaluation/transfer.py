"""``verl-rsim transfer``: runs the cells of a matrix, one after the other, and takes them up again after a kill.

A finished cell is found finished, a half-finished one goes on. A cell that fails is noted in ``errors.json`` and the
others go on; the next start tries it again.
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
from verl_rsim.evaluation.config import ModelConfig, build_table
from verl_rsim.evaluation.dataset import EvaluationDataset, check_truths, load_questions
from verl_rsim.evaluation.manifest import open_manifest
from verl_rsim.evaluation.matrix import Cell, Matrix, cells
from verl_rsim.evaluation.models import AnyPlayer, Planner, Reasoner
from verl_rsim.evaluation.records import read_records
from verl_rsim.evaluation.runner import evaluate
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.artifact_folders import write_atomically
from verl_rsim.utils.errors import RsimError

ERRORS = "errors.json"


async def transfer(matrix: Matrix, folder: Path, console: Console) -> dict[str, str]:
    """Play what the folder lacks.

    Returns:
        The message of each cell that failed, by the cell's path.

    Raises:
        ConfigError, DataError: the folder holds something else, or a dataset cannot be used.
    """
    scorer = Scorer(matrix.settings.scoring, matrix.settings.fusion_url)
    try:
        data = {name: load_questions(source, matrix.settings.limit) for name, source in matrix.datasets.items()}
        for dataset in data.values():
            check_truths(dataset, scorer)
        open_manifest(
            folder, "transfer", {"draw": dataclasses.asdict(matrix.settings.draw)}, dataclasses.asdict(matrix)
        )
        return await _Transfer(matrix, data, scorer, folder, console).run()
    finally:
        scorer.close()


class _Transfer:
    """One start of a transfer."""

    def __init__(
        self, matrix: Matrix, data: Mapping[str, EvaluationDataset], scorer: Scorer, folder: Path, console: Console
    ):
        self.matrix, self.data, self.scorer, self.folder, self.console = matrix, data, scorer, folder, console
        self.errors: dict[str, str] = {}
        self.reasoners = self._load(Reasoner, matrix.reasoners)
        self.planners = self._load(Planner, matrix.planners)

    def _load(self, cls: type[AnyPlayer], models: Mapping[str, ModelConfig]) -> dict[str, AnyPlayer | RsimError]:
        """Every model's tokenizer, or why there is none: told before the first model takes minutes to load."""
        loaded: dict[str, AnyPlayer | RsimError] = {}
        for name, model in models.items():
            try:
                loaded[name] = model.load(cls)
            except RsimError as error:
                loaded[name] = error
                self.console.print(f"{cls.role} {name}: {error}", style="red", highlight=False)
        return loaded

    async def run(self) -> dict[str, str]:
        """All cells; models are loaded when a cell needs them and freed after the last one that does."""
        plan = cells(self.matrix)
        missing = {cell: self._missing(cell) for cell in plan}
        began, played, number = time.monotonic(), 0, 0
        for reasoner, of_reasoner in itertools.groupby(plan, lambda cell: cell.reasoner):
            for planner, of_planner in itertools.groupby(of_reasoner, lambda cell: cell.planner):
                for cell in of_planner:
                    number += 1
                    await self._play(cell, f"cell {number}/{len(plan)} {cell.path}")
                    played += missing.pop(cell)
                    left = (time.monotonic() - began) / max(1, played) * sum(missing.values())
                    if played and missing:
                        self.console.print(f"about {timedelta(seconds=round(left))} left", highlight=False)
                await _close(self.planners.get(planner or ""))
            await _close(self.reasoners[reasoner])
        return self.errors

    async def _play(self, cell: Cell, title: str) -> None:
        reasoner, planner = self.reasoners[cell.reasoner], self.planners.get(cell.planner or "")
        try:
            for player in (reasoner, planner):
                if isinstance(player, RsimError):
                    raise player
            controls = self.matrix.controls if cell.planner is None else ()
            settings = self.matrix.settings
            table = build_table(
                reasoner,  # type: ignore[arg-type]
                {PLANNER: planner} if planner else {},  # type: ignore[dict-item]
                controls,
                settings,
                engines_at_once=2,
            )
            dataset, folder = self.data[cell.dataset], self.folder / cell.path
            await evaluate(
                table, dataset, self.scorer, folder, self.console, settings.samples, settings.concurrency, title
            )
        except Exception as error:  # noqa: BLE001 - hours of other cells must not be lost; it is shown and the exit code tells
            message = str(error) if isinstance(error, RsimError) else "".join(traceback.format_exception(error))
            self.errors[cell.path] = message
            self.console.print(f"{title} failed: {message}", style="red", highlight=False, markup=False)
            for player in (reasoner, planner):
                await _close(player)  # a dead engine is started again by the next cell
        write_atomically(self.folder / ERRORS, json.dumps(self.errors, indent=1))

    def _missing(self, cell: Cell) -> int:
        """Answers still to be played, as far as the records say."""
        conditions = 1 if cell.planner else len(self.matrix.controls)
        total = conditions * len(self.data[cell.dataset].questions) * self.matrix.settings.samples
        try:
            return max(0, total - len(read_records(self.folder / cell.path)))
        except RsimError:
            return total


async def _close(player: Planner | Reasoner | RsimError | None) -> None:
    if player is not None and not isinstance(player, RsimError):
        await player.close()
