"""``verl-rsim eval``: one reasoner, a planner, its controls, one dataset."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from verl_rsim.core.controls import BASE_PLANNER, PLANNER, parse_controls
from verl_rsim.evaluation.conditions import Table
from verl_rsim.evaluation.config import ModelConfig, Settings, build_table, default_folder
from verl_rsim.evaluation.dataset import check_truths, load_questions
from verl_rsim.evaluation.models import Planner, Reasoner
from verl_rsim.evaluation.reports.summary import Report
from verl_rsim.evaluation.reports.write import write_report
from verl_rsim.evaluation.runner import evaluate, fixed
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.errors import ConfigError


def run_eval(
    reasoner: ModelConfig,
    planner: ModelConfig | None,
    base_planner: ModelConfig | None,
    data: str,
    controls: Sequence[str],
    settings: Settings,
    out: Path | None,
    console: Console,
) -> Report:
    """Check everything, play what the folder lacks, write and print the report.

    Raises:
        ConfigError, DataError: something cannot be as asked; raised before any weights are loaded.
        EngineError, SandboxError: a model or the sandbox failed; the same call goes on where it stopped.
    """
    named = parse_controls(controls)
    if not named and planner is None and base_planner is None:
        raise ConfigError("controls", list(controls), "nothing is left to evaluate; name a planner or a control")
    dataset = load_questions(data, settings.limit)
    scorer = Scorer(settings.scoring, settings.fusion_url)
    try:
        check_truths(dataset, scorer)
        wanted = {BASE_PLANNER: base_planner, PLANNER: planner}
        planners = {name: model.load(Planner) for name, model in wanted.items() if model is not None}
        table = build_table(reasoner.load(Reasoner), planners, named, settings)
        folder = out or default_folder(fixed(table, dataset, scorer))
        console.print(f"Results go to {folder}", highlight=False)

        async def play() -> None:
            try:
                await evaluate(table, dataset, scorer, folder, console, settings.samples, settings.concurrency)
            finally:
                await close(table)

        asyncio.run(play())
    finally:
        scorer.close()
    return write_report(folder, console)


async def close(table: Table) -> None:
    """Free all models of a table."""
    for player in (table.reasoner, *table.planners.values()):
        await player.close()
