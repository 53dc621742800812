"""The commands ``eval``, ``transfer``, ``results`` and ``compare``; nothing heavy is imported until one runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from verl_rsim.utils.errors import ConfigError

Model = "Hugging Face folder or id, checkpoint global_step_N, or URL of a server with /v1/completions"


def eval_command(
    reasoner: Annotated[str, typer.Option(help=Model)],
    data: Annotated[str, typer.Option(help="A .parquet file, or the name of prepared data")],
    planner: Annotated[str | None, typer.Option(help=f"The planner under test: {Model}")] = None,
    base_planner: Annotated[str | None, typer.Option(help="The planner before training, as a control")] = None,
    controls: Annotated[
        str, typer.Option(help="Of alone, self_strategies, random, fixed, fixed:NAME, all, none; separated by commas")
    ] = "all",
    samples: Annotated[int, typer.Option(help="Answers a question (k)")] = 1,
    temperature: Annotated[float, typer.Option(help="Of both models; 0 is greedy")] = 0.0,
    planner_temperature: Annotated[float | None, typer.Option(help="Of the planner, if another")] = None,
    top_p: Annotated[float, typer.Option()] = 1.0,
    seed: Annotated[int, typer.Option()] = 0,
    limit: Annotated[int | None, typer.Option(help="The first so many questions")] = None,
    concurrency: Annotated[int, typer.Option(help="Answers under way at once")] = 32,
    max_turns: Annotated[int, typer.Option()] = 6,
    max_step_tokens: Annotated[int, typer.Option()] = 128,
    max_answer_tokens: Annotated[int, typer.Option()] = 128,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Default: what the context leaves")] = None,
    context: Annotated[int, typer.Option(help="Tokens of a row, where the model takes as many")] = 8192,
    injection: Annotated[str, typer.Option(help="inline or chat")] = "inline",
    delimiter: Annotated[str, typer.Option(help="Ends a step, as rsim.step_delimiter", show_default=False)] = "\n\n",
    planner_decoding: Annotated[str, typer.Option(help="constrained or free, as in training")] = "constrained",
    planner_tokenizer: Annotated[str | None, typer.Option(help="Of an endpoint")] = None,
    reasoner_tokenizer: Annotated[str | None, typer.Option(help="Of an endpoint")] = None,
    template: Annotated[str, typer.Option(help="Arguments of both chat templates, as JSON")] = "{}",
    engine: Annotated[str, typer.Option(help="Arguments of vLLM's AsyncEngineArgs, as JSON")] = "{}",
    scoring: Annotated[str, typer.Option(help="Settings as in rsim.scoring, as JSON")] = "{}",
    fusion_url: Annotated[str | None, typer.Option(help="Of the sandbox service, with sandbox fusion")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: a folder below $RSIM_HOME/evals")] = None,
) -> None:
    """Evaluate a planner before a reasoner, against its controls; the same command goes on after a kill."""
    from rich.console import Console

    from verl_rsim.evaluation.config import ModelConfig, Settings
    from verl_rsim.evaluation.evaluate import run_eval
    from verl_rsim.evaluation.rules import Rules
    from verl_rsim.reward.config import parse_scoring

    rules = Rules(
        max_turns, max_step_tokens, max_answer_tokens, max_prompt_tokens, injection, delimiter, planner_decoding
    )
    scored = parse_scoring(read_object("scoring", scoring))
    settings = Settings(
        samples, temperature, planner_temperature, top_p, seed, limit, concurrency, rules, scored, fusion_url
    )
    shared: dict[str, Any] = {
        "template_kwargs": read_object("template", template),
        "engine_options": read_object("engine", engine),
        "context": context,
    }
    run_eval(
        ModelConfig(reasoner, reasoner_tokenizer, **shared),
        ModelConfig(planner, planner_tokenizer, **shared) if planner else None,
        ModelConfig(base_planner, planner_tokenizer, **shared) if base_planner else None,
        data,
        [name.strip() for name in controls.split(",") if name.strip()],
        settings,
        out,
        Console(),
    )


def read_object(key: str, text: str) -> dict[str, Any]:
    """An option that holds a JSON object.

    Raises:
        ConfigError: it does not.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(key, text, 'must be a JSON object, e.g. {"enable_thinking": false}')
    return value


def transfer(
    matrix: Annotated[Path, typer.Argument(help="A YAML file with planners, reasoners and datasets")],
    out: Annotated[Path | None, typer.Option(help="Default: $RSIM_HOME/transfers/NAME")] = None,
) -> None:
    """Put planners before reasoners on datasets: one table, one heat map; the same command goes on after a kill."""
    import asyncio

    from rich.console import Console

    from verl_rsim.evaluation import matrix as described
    from verl_rsim.evaluation import transfer as running
    from verl_rsim.evaluation.reports.transfer import write_transfer_report
    from verl_rsim.utils.artifact_folders import home

    console, folder = Console(), out or home() / "transfers" / matrix.stem
    console.print(f"Results go to {folder}", highlight=False)
    failed = asyncio.run(running.transfer(described.read_matrix(matrix), folder, console))
    write_transfer_report(folder, console)
    if failed:
        console.print(f"{len(failed)} cells failed; the same command tries them again", style="red")
        raise typer.Exit(1)


def results(folder: Annotated[Path, typer.Argument(help="Of eval or transfer")]) -> None:
    """Draw the tables and plots of an evaluation or a transfer again, from its records."""
    from rich.console import Console

    from verl_rsim.evaluation.manifest import read_manifest
    from verl_rsim.evaluation.reports.transfer import write_transfer_report
    from verl_rsim.evaluation.reports.write import write_report

    write = write_report if read_manifest(folder)["kind"] == "eval" else write_transfer_report
    write(folder, Console())


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation (A)")],
    second: Annotated[Path, typer.Argument(help="Folder of another one (B)")],
    condition: Annotated[list[str] | None, typer.Option(help="Only this condition; may be repeated")] = None,
) -> None:
    """Compare two evaluations on the questions that both hold, condition by condition."""
    from rich.console import Console

    from verl_rsim.evaluation.reports.write import compare as compare_folders

    compare_folders(first, second, Console(), tuple(condition or ()))


def mount(app: typer.Typer) -> None:
    """Add the commands to ``verl-rsim``."""
    app.command("eval")(eval_command)
    for command in (transfer, results, compare):
        app.command()(command)
