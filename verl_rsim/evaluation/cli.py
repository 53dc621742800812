"""Defines ``eval``, ``transfer``, ``results``, ``compare`` and ``grade``; heavy imports wait until one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verl_rsim.evaluation.play_options import MODEL_HELP, PlayOptions, parse_json_option, takes_play_options


@takes_play_options
def eval_command(
    reasoner: Annotated[str, typer.Option(help=MODEL_HELP)],
    data: Annotated[str, typer.Option(help="A .parquet file, or the name of prepared data")],
    planner: Annotated[str | None, typer.Option(help=f"The planner under test: {MODEL_HELP}")] = None,
    base_planner: Annotated[str | None, typer.Option(help="The planner before training, as a control")] = None,
    controls: Annotated[
        str,
        typer.Option(help="Comma-separated: alone, self_strategies, random, fixed, fixed:NAME; or all, or none"),
    ] = "all",
    samples: Annotated[int, typer.Option(help="Answers per question and condition (k)")] = 1,
    temperature: Annotated[float, typer.Option(help="Temperature of both models; 0 is greedy")] = 0.0,
    planner_temperature: Annotated[
        float | None, typer.Option(help="Temperature of the planner; default: --temperature")
    ] = None,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling (top-p) of both models")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling and statistics")] = 0,
    limit: Annotated[int | None, typer.Option(help="Play only the first N questions")] = None,
    concurrency: Annotated[int, typer.Option(help="Episodes played at once")] = 32,
    play: PlayOptions = PlayOptions(),  # noqa: B008 (it is frozen)
    scoring: Annotated[str, typer.Option(help="Settings as in rsim.scoring, as JSON")] = "{}",
    fusion_url: Annotated[
        str | None, typer.Option(help="URL of the sandbox service, for the scoring setting sandbox=fusion")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: one below $RSIM_HOME/evals")] = None,
) -> None:
    """Evaluate a planner with a reasoner against controls; after a kill the same command continues."""
    from rich.console import Console

    from verl_rsim.evaluation.config import EvaluationSettings
    from verl_rsim.evaluation.evaluate import run_eval
    from verl_rsim.reward.config import parse_scoring

    settings = EvaluationSettings(
        samples=samples,
        temperature=temperature,
        planner_temperature=planner_temperature,
        top_p=top_p,
        seed=seed,
        limit=limit,
        concurrency=concurrency,
        scoring=parse_scoring(parse_json_option("scoring", scoring)),
        fusion_url=fusion_url,
    )
    run_eval(
        reasoner=play.reasoner(reasoner),
        planner=play.planner(planner) if planner else None,
        base_planner=play.planner(base_planner) if base_planner else None,
        data=data,
        controls=[name.strip() for name in controls.split(",") if name.strip()],
        settings=settings,
        given_rules=play.given_rules(),
        out=out,
        console=Console(),
    )


def transfer(
    matrix: Annotated[Path, typer.Argument(help="A YAML file with planners, reasoners and datasets")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: $RSIM_HOME/transfers/NAME")] = None,
) -> None:
    """Evaluate planners with reasoners on datasets, as table and heat map; after a kill the same command continues."""
    import asyncio

    from rich.console import Console

    from verl_rsim.evaluation.matrix import read_matrix
    from verl_rsim.evaluation.reports.transfer import write_transfer_report
    from verl_rsim.evaluation.transfer import run_transfer
    from verl_rsim.utils.artifact_folders import home

    console, folder = Console(), out or home() / "transfers" / matrix.stem
    console.print(f"Results go to {folder}", highlight=False)
    failed = asyncio.run(run_transfer(read_matrix(matrix), folder, console))
    write_transfer_report(folder, console)
    if failed:
        console.print(f"{len(failed)} cells failed; the same command tries them again", style="red")
        raise typer.Exit(1)


def results(folder: Annotated[Path, typer.Argument(help="Folder of an evaluation or a transfer")]) -> None:
    """Draw tables and plots of an evaluation or a transfer again from its records."""
    from rich.console import Console

    from verl_rsim.evaluation.manifest import read_manifest
    from verl_rsim.evaluation.reports.transfer import write_transfer_report
    from verl_rsim.evaluation.reports.write import write_report

    write = write_report if read_manifest(folder)["kind"] == "eval" else write_transfer_report
    write(folder, Console())


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation (A)")],
    second: Annotated[Path, typer.Argument(help="Folder of another one (B)")],
    condition: Annotated[list[str] | None, typer.Option(help="Compare only this condition; may be repeated")] = None,
) -> None:
    """Compare two evaluations on their common questions, condition by condition."""
    from rich.console import Console

    from verl_rsim.evaluation.reports.write import compare_evaluations

    compare_evaluations(first, second, Console(), tuple(condition or ()))


def grade(
    file: Annotated[Path, typer.Argument(help="Rows with text and truth (docs/rewards.md), or the folder of a run")],
    kind: Annotated[str, typer.Option("--type", help="Type of rows without type and data_source")] = "math",
    against: Annotated[str, typer.Option(help="Other scorers to compare with: verl, math_verify, or both")] = "",
    by: Annotated[str, typer.Option(help="Column by which the table counts")] = "type",
    show: Annotated[int, typer.Option(min=0, help="Rows whose verdict is explained on the terminal")] = 20,
    out: Annotated[Path | None, typer.Option(help="JSONL file for all verdicts and explanations")] = None,
    scoring: Annotated[str, typer.Option(help="Settings as in rsim.scoring, as JSON")] = "{}",
    fusion_url: Annotated[
        str | None, typer.Option(help="URL of the sandbox service, for the scoring setting sandbox=fusion")
    ] = None,
) -> None:
    """Grade texts offline and explain each verdict: what was extracted, and how it was compared."""
    from rich.console import Console

    from verl_rsim.evaluation.grading import grade_file, write_graded
    from verl_rsim.evaluation.reports.grading import (
        comparison_table,
        counts_table,
        print_differences,
        print_explanations,
    )
    from verl_rsim.reward.config import parse_scoring

    console, names = Console(), [name.strip() for name in against.split(",") if name.strip()]
    settings = parse_scoring(parse_json_option("scoring", scoring))
    graded, problems = grade_file(file, kind, settings, names, fusion_url)
    print_explanations(graded, show, console)
    if names or any(item.disputed for item in graded):
        print_differences(graded, show, console)
    for table in (counts_table(graded, by), comparison_table(graded, by)):
        if table is not None:
            console.print()
            console.print(table)
    if out:
        write_graded(out, graded)
        console.print(f"Wrote {out}", highlight=False)
    for problem in problems[:show]:
        typer.secho(problem, fg="red", err=True)
    if problems:
        typer.secho(f"{len(problems)} rows were not graded", fg="red", err=True)
        raise typer.Exit(1)


def mount(app: typer.Typer) -> None:
    """Adds the commands to ``verl-rsim``."""
    app.command("eval")(eval_command)
    for command in (transfer, results, compare, grade):
        app.command()(command)
