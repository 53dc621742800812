"""Defines the commands ``eval``, ``transfer``, ``results`` and ``compare``; heavy imports wait until one runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from verl_rsim.utils.errors import ConfigError

MODEL_HELP = "Hugging Face folder or id, checkpoint global_step_N, or URL of a server with /v1/completions"


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
    max_turns: Annotated[int, typer.Option(help="Most turns of an episode, as rsim.max_turns")] = 6,
    max_step_tokens: Annotated[int, typer.Option(help="Most tokens of a step, as rsim.max_step_tokens")] = 128,
    max_answer_tokens: Annotated[
        int, typer.Option(help="Most tokens of the final answer, as rsim.max_answer_tokens")
    ] = 128,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a prompt; default: all that the context leaves")
    ] = None,
    context: Annotated[int, typer.Option(help="Most tokens of a row; a model's own limit may be lower")] = 8192,
    injection: Annotated[str, typer.Option(help="inline or chat, as rsim.injection")] = "inline",
    delimiter: Annotated[
        str, typer.Option(help="Text that ends a step, as rsim.step_delimiter", show_default=False)
    ] = "\n\n",
    planner_decoding: Annotated[str, typer.Option(help="constrained or free, as in training")] = "constrained",
    planner_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a planner behind a URL")] = None,
    reasoner_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a reasoner behind a URL")] = None,
    template: Annotated[str, typer.Option(help="Arguments of both chat templates, as JSON")] = "{}",
    engine: Annotated[str, typer.Option(help="Arguments of vLLM's AsyncEngineArgs, as JSON")] = "{}",
    scoring: Annotated[str, typer.Option(help="Settings as in rsim.scoring, as JSON")] = "{}",
    fusion_url: Annotated[
        str | None, typer.Option(help="URL of the sandbox service, for the scoring setting sandbox=fusion")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: one below $RSIM_HOME/evals")] = None,
) -> None:
    """Evaluate a planner with a reasoner against controls; after a kill the same command continues."""
    from rich.console import Console

    from verl_rsim.evaluation.config import EvaluationSettings, ModelConfig
    from verl_rsim.evaluation.evaluate import run_eval
    from verl_rsim.evaluation.rules import Rules
    from verl_rsim.reward.config import parse_scoring

    rules = Rules(
        max_turns=max_turns,
        max_step_tokens=max_step_tokens,
        max_answer_tokens=max_answer_tokens,
        max_prompt_tokens=max_prompt_tokens,
        injection=injection,
        delimiter=delimiter,
        planner_decoding=planner_decoding,
    )
    settings = EvaluationSettings(
        samples=samples,
        temperature=temperature,
        planner_temperature=planner_temperature,
        top_p=top_p,
        seed=seed,
        limit=limit,
        concurrency=concurrency,
        rules=rules,
        scoring=parse_scoring(parse_json_option("scoring", scoring)),
        fusion_url=fusion_url,
    )
    model_options: dict[str, Any] = {
        "template_kwargs": parse_json_option("template", template),
        "engine_options": parse_json_option("engine", engine),
        "context": context,
    }
    run_eval(
        reasoner=ModelConfig(reasoner, reasoner_tokenizer, **model_options),
        planner=ModelConfig(planner, planner_tokenizer, **model_options) if planner else None,
        base_planner=ModelConfig(base_planner, planner_tokenizer, **model_options) if base_planner else None,
        data=data,
        controls=[name.strip() for name in controls.split(",") if name.strip()],
        settings=settings,
        out=out,
        console=Console(),
    )


def parse_json_option(key: str, text: str) -> dict[str, Any]:
    """Parses the value of an option that holds a JSON object.

    Raises:
        ConfigError: the text is not a JSON object.
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


def mount(app: typer.Typer) -> None:
    """Adds the commands to ``verl-rsim``."""
    app.command("eval")(eval_command)
    for command in (transfer, results, compare):
        app.command()(command)
