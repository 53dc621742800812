"""Runs ``verl-rsim eval``: one reasoner, a planner and its controls on one dataset."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_rsim.core.controls import BASE_PLANNER, PLANNER, parse_controls
from verl_rsim.evaluation.conditions import ConditionPlayer
from verl_rsim.evaluation.config import EvaluationSettings, ModelConfig, build_condition_player, default_folder
from verl_rsim.evaluation.dataset import check_sandbox, load_questions
from verl_rsim.evaluation.models import Planner, Reasoner
from verl_rsim.evaluation.reports.summary import Report
from verl_rsim.evaluation.reports.write import write_report
from verl_rsim.evaluation.runner import evaluate, fixed_settings
from verl_rsim.evaluation.trained_rules import ResolvedRules, resolve_rules
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.errors import ConfigError


def run_eval(
    reasoner: ModelConfig,
    planner: ModelConfig | None,
    base_planner: ModelConfig | None,
    data: str,
    controls: Sequence[str],
    settings: EvaluationSettings,
    given_rules: Mapping[str, Any],
    out: Path | None,
    console: Console,
) -> Report:
    """Checks all settings, plays the episodes that the folder lacks, writes and prints the report.

    Args:
        reasoner: the reasoner.
        planner: the planner under test, or None.
        base_planner: the planner before training, or None.
        data: a parquet file, or the name of prepared data.
        controls: names of controls, as in :func:`verl_rsim.core.controls.parse_controls`.
        settings: sampling and scoring; its rules are replaced.
        given_rules: rules other than those with which the planner was trained, as in :func:`resolve_rules`.
        out: destination folder; None for :func:`default_folder`.
        console: shows progress and report.

    Raises:
        ConfigError, DataError: a setting or the data is invalid; raised before any weights are loaded.
        EngineError, SandboxError: a model or the sandbox failed; the same call continues where it stopped.
    """
    control_names = parse_controls(controls)
    if not control_names and planner is None and base_planner is None:
        raise ConfigError("controls", list(controls), "nothing is left to evaluate; name a planner or a control")
    dataset = load_questions(data, settings.limit, settings.scoring)
    scorer = Scorer(settings.scoring, settings.fusion_url)
    try:
        check_sandbox(dataset, scorer)
        configs = {BASE_PLANNER: base_planner, PLANNER: planner}
        resolved = _resolve_rules(planner or base_planner, given_rules)
        resolved.show(console)
        settings = dataclasses.replace(settings, rules=resolved.rules)
        planners = {}
        for name, config in configs.items():
            if config is not None:
                planners[name] = config.with_rules(resolved.trained, Planner.role).load(Planner)
        loaded_reasoner = reasoner.with_rules(resolved.trained, Reasoner.role).load(Reasoner)
        player = build_condition_player(loaded_reasoner, planners, control_names, settings)
        folder = out or default_folder(fixed_settings(player, dataset, scorer))
        console.print(f"Results go to {folder}", highlight=False)

        async def play() -> None:
            try:
                await evaluate(
                    player,
                    dataset,
                    scorer,
                    folder,
                    console,
                    samples=settings.samples,
                    concurrency=settings.concurrency,
                )
            finally:
                await close_models(player)

        asyncio.run(play())
    finally:
        scorer.close()
    return write_report(folder, console)


def _resolve_rules(planner: ModelConfig | None, given: Mapping[str, Any]) -> ResolvedRules:
    """Returns the rules of the planner under test, by which the controls and the planner before training play too."""
    return resolve_rules({planner.path: planner.describe(Planner.role)} if planner else {}, given)


async def close_models(player: ConditionPlayer) -> None:
    """Frees the memory of all models."""
    for model in (player.reasoner, *player.planners.values()):
        await model.close()
