"""Defines the command ``verl-rsim``; heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from verl_rsim.evaluation import cli as evaluation_cli
from verl_rsim.serving import cli as serving_cli
from verl_rsim.training import job_launch, launch
from verl_rsim.utils.artifact_folders import HOME, home
from verl_rsim.utils.errors import RsimError
from verl_rsim.utils.progress import quiet_bars

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a planner and a reasoner with verl.")
RECIPE_HELP = "A recipe, a .yaml file, or rsim_trainer"


@app.command("prepare-data")
def prepare_data(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="math, math500, gsm8k, aqua, mmlu_pro, theoremqa, humaneval, mbpp, finqa; finance_synthetic, "
            "option_synthetic, ...; arithmetic or another reasoning-gym generator; a .csv, .json, .jsonl or "
            ".parquet file",
        ),
    ],
    copy: Annotated[
        Path | None, typer.Option("--source", help="A local copy of a published dataset, in its published layout")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: $RSIM_HOME/data/NAME")] = None,
    train: Annotated[
        int | None, typer.Option(min=1, help="Training questions; default: all, 512 if they are generated")
    ] = None,
    test: Annotated[
        int | None, typer.Option(min=1, help="Test questions; default: all, 64 if generated or from a file")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of the training questions to hold out as val.parquet")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the generated questions, the splits and the samples")] = 0,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Drop prompts with more tokens; needs --tokenizer")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Model whose tokenizer counts the tokens of --max-prompt-tokens")
    ] = None,
    max_prompt_chars: Annotated[int | None, typer.Option(min=1, help="Drop prompts with more characters")] = None,
    against: Annotated[
        str, typer.Option(help="Drop training questions of these evaluation sets, e.g. math500,gsm8k,x.parquet")
    ] = "",
    ngram: Annotated[
        int, typer.Option(min=1, help="Words in a row that count as overlap with the sets of --against")
    ] = 13,
    drop_overlap: Annotated[
        bool, typer.Option("--drop-overlap", help="Also drop training questions that overlap")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Commit or tag of the hub's repository")] = None,
    question: Annotated[
        str, typer.Option(help="Column of a file with the questions: text or lists of messages")
    ] = "question",
    answer: Annotated[
        str, typer.Option(help="Column of a file with the answers, or with solutions that box one")
    ] = "answer",
    code: Annotated[
        bool, typer.Option("--code", help="The ground truths of a file are tests (docs/rewards.md)")
    ] = False,
) -> None:
    """Write verl parquet files from a public dataset, generated questions, or a file (docs/data.md)."""
    quiet_bars()
    from verl_rsim.data.filters import Filters
    from verl_rsim.data.prepare import prepare

    folder = out or home() / "data" / Path(source).stem
    filters = Filters(
        max_prompt_chars=max_prompt_chars,
        max_prompt_tokens=max_prompt_tokens,
        tokenizer=tokenizer,
        val_share=val_share,
        against=tuple(name.strip() for name in against.split(",") if name.strip()),
        ngram=ngram,
        drop_overlap=drop_overlap,
    )
    written = prepare(
        folder,
        source,
        train=train,
        test=test,
        seed=seed,
        question=question,
        answer=answer,
        ability="code" if code else "math",
        copy=copy,
        revision=revision,
        filters=filters,
    )
    files = " and ".join(sorted(path.name for path in folder.glob("*.parquet")))
    typer.echo(f"{'Wrote' if written else 'Already there:'} {folder}: {files}")


@app.command("prepare-model")
def prepare_model(
    name: Annotated[str, typer.Argument(help="smollm2, tiny-llama or tiny-qwen2")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: $RSIM_HOME/models/NAME")] = None,
    seed: Annotated[int, typer.Option(help="Seed of a tiny model's random weights")] = 0,
) -> None:
    """Make a model folder without downloading it from a model hub."""
    quiet_bars()
    from verl_rsim.data.prepare_models import prepare_smollm2, prepare_tiny

    folder = out or home() / "models" / name
    if name == "smollm2":
        written = prepare_smollm2(folder)
    else:
        written = prepare_tiny(folder, family=name.removeprefix("tiny-"), seed=seed)
    typer.echo(f"{'Wrote' if written else 'Already there:'} {folder}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help=f"{RECIPE_HELP}; e.g. quickstart, math_rsim/planner_0.5b_reasoner_7b")],
) -> None:
    """Train with a recipe through verl's entry point; further arguments are hydra overrides."""
    raise typer.Exit(job_launch.train(recipe, context.args))


@app.command("chain")
def chain_command(
    path: Annotated[Path, typer.Argument(metavar="CHAIN", help="A YAML file with planner, reasoner and stages")],
    planner: Annotated[str | None, typer.Option(help="Planner to train; default: the file's")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: $RSIM_HOME/chains/NAME")] = None,
) -> None:
    """Train a planner on one task after another and report what it forgets; after a kill the same command continues."""
    from rich.console import Console

    from verl_rsim.continual.chain import read_chain
    from verl_rsim.continual.runner import run_chain

    console, folder = Console(), (out or home() / "chains" / path.stem).absolute()
    chain = read_chain(path, planner)
    console.print(f"Results go to {folder}", highlight=False)
    run_chain(chain, folder, console, launch.run)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def doctor(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help=f"{RECIPE_HELP}; further arguments are hydra overrides")] = None,
) -> None:
    """Check whether jobs can run on this machine; with a recipe, also whether its two models fit into memory."""
    from rich.console import Console

    from verl_rsim.training.preflight.doctor import CHECKS, diagnose

    os.environ[HOME] = str(home())
    console, checks = Console(), CHECKS
    if recipe:

        def check_recipe():
            from verl_rsim.training.preflight.doctor_job import check_job

            return check_job(recipe, context.args, console)

        checks = (*CHECKS, check_recipe)
    if not diagnose(console, checks):
        raise typer.Exit(1)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A folder global_step_N, or the folder that contains it")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder in which to write a folder for each policy; default: $RSIM_HOME/exported/RUN"),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as the policy was served in training")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(help="Also upload to USER/NAME at the hub; of two policies to USER/NAME-ROLE")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make repositories at the hub private")] = False,
) -> None:
    """Write both policies of a checkpoint as Hugging Face folders that say how they were trained."""
    from verl_rsim.core.policy_description import POLICY_FILE
    from verl_rsim.training.checkpoint.export import export_policies

    run_dir = checkpoint.resolve()
    if run_dir.name.startswith("global_step_"):
        run_dir = run_dir.parent
    folders = export_policies(checkpoint, out or home() / "exported" / run_dir.name, dtype)
    for role, folder in folders.items():
        typer.echo(f"{role}: {folder}")
        if not (folder / POLICY_FILE).is_file():
            typer.echo(f"  has no {POLICY_FILE}: an older version saved this checkpoint; give its rules as options")
    if hub:
        from verl_rsim.training.checkpoint.upload import upload_policies

        for role, url in upload_policies(folders, hub, private=private).items():
            typer.echo(f"{role}: {url}")


@app.command()
def summary(
    run_dir: Annotated[Path, typer.Argument(help="The run's folder (trainer.default_local_dir)")],
    metrics: Annotated[
        Path | None, typer.Option(help="The .jsonl that verl's file logger wrote; default: searched for")
    ] = None,
) -> None:
    """Print what a run taught, on one screen: accuracy before and after, the planner's choices, what to try next."""
    from rich.console import Console

    from verl_rsim.monitoring.report.summary import print_next, print_summary
    from verl_rsim.monitoring.report.write import read_run

    data = read_run(run_dir, metrics, home(), Console(stderr=True))
    console = Console()
    print_summary(data, console)
    print_next(run_dir, data, home(), console)


@app.command("replay")
def replay_command(
    path: Annotated[Path, typer.Argument(help="An episode file, or the folder of a run or an evaluation")],
    step: Annotated[int | None, typer.Option(help="Training step")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Show only wrong answers")] = False,
    strategy: Annotated[
        str | None, typer.Option(help="Show only episodes with this strategy, e.g. self_reflection")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(help="Show only episodes that ended for this reason, e.g. max_turns")
    ] = None,
    condition: Annotated[str | None, typer.Option(help="Condition of an evaluation, e.g. planner")] = None,
    search: Annotated[str | None, typer.Option(help="Text to find in question, steps or ground truth")] = None,
) -> None:
    """Show logged episodes in the terminal."""
    from rich.console import Console

    from verl_rsim.monitoring.episode_log import read_log
    from verl_rsim.monitoring.episode_viewer import EpisodeFilter, replay

    selection = EpisodeFilter(step=step, wrong=wrong, strategy=strategy, stop=stop, condition=condition, search=search)
    if not replay(read_log(path), selection, Console()):
        typer.echo("No episode passes these filters.", err=True)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="The run's folder (trainer.default_local_dir), or an evaluation's")],
    metrics: Annotated[
        Path | None, typer.Option(help="The .jsonl that verl's file logger wrote; default: searched for")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File; default: report.html in that folder")] = None,
    formats: Annotated[str, typer.Option("--format", help="Comma-separated: html, md, png, csv")] = "html",
) -> None:
    """Write a report of a run as one file: curves, strategies, every logged episode."""
    from rich.console import Console

    from verl_rsim.monitoring.report.write import write_report

    write_report(run_dir, metrics, out, formats.split(","), home(), Console(stderr=True))


evaluation_cli.mount(app)
serving_cli.mount(app)


def main() -> None:
    """Runs the command line; an :class:`RsimError` is printed as one line, without a traceback."""
    try:
        app()
    except RsimError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
