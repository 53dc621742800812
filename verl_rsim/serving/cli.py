"""The command ``serve``; nothing heavy is imported until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from verl_rsim.evaluation.cli import Model, read_object


def serve(
    planner: Annotated[str, typer.Option(help=Model)],
    reasoner: Annotated[str, typer.Option(help=Model)],
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    name: Annotated[str, typer.Option(help="Of the model, for clients")] = "rsim",
    api_key_file: Annotated[
        Path | None, typer.Option(help="Holds the key clients must send; or set RSIM_SERVE_API_KEY")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Episodes played at once")] = 32,
    queue: Annotated[int, typer.Option(help="Episodes that may wait; more are turned away (429)")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds a request may take")] = 300.0,
    drain: Annotated[float, typer.Option(help="Seconds for requests under way at the end")] = 30.0,
    max_n: Annotated[int, typer.Option(help="Answers of one request")] = 8,
    max_body: Annotated[int, typer.Option(help="Bytes of a request")] = 1 << 18,
    max_turns: Annotated[int, typer.Option()] = 6,
    max_step_tokens: Annotated[int, typer.Option()] = 128,
    max_answer_tokens: Annotated[int, typer.Option()] = 128,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Default: what the context leaves")] = None,
    context: Annotated[int, typer.Option(help="Tokens of a row, where the model takes as many")] = 8192,
    injection: Annotated[str, typer.Option(help="inline or chat; as in training")] = "inline",
    delimiter: Annotated[str, typer.Option(help="Ends a step, as rsim.step_delimiter", show_default=False)] = "\n\n",
    planner_decoding: Annotated[str, typer.Option(help="constrained or free, as in training")] = "constrained",
    planner_tokenizer: Annotated[str | None, typer.Option(help="Of an endpoint")] = None,
    reasoner_tokenizer: Annotated[str | None, typer.Option(help="Of an endpoint")] = None,
    template: Annotated[str, typer.Option(help="Arguments of both chat templates, as JSON")] = "{}",
    engine: Annotated[str, typer.Option(help="Arguments of vLLM's AsyncEngineArgs, as JSON")] = "{}",
) -> None:
    """Serve a planner before a reasoner by OpenAI's API, with a page to watch them (docs/serving.md)."""
    from rich.console import Console

    from verl_rsim.evaluation.config import ModelConfig, seat
    from verl_rsim.evaluation.models import Planner, Reasoner
    from verl_rsim.evaluation.rules import Rules
    from verl_rsim.serving.admission import ServeLimits, read_api_key
    from verl_rsim.serving.server import bind, run
    from verl_rsim.serving.service import Service

    rules = Rules(
        max_turns, max_step_tokens, max_answer_tokens, max_prompt_tokens, injection, delimiter, planner_decoding
    )
    limits = ServeLimits(concurrency, queue, max_n, max_body, timeout, drain)
    key = read_api_key(api_key_file)
    shared: dict[str, Any] = {
        "template_kwargs": read_object("template", template),
        "engine_options": read_object("engine", engine),
        "context": context,
    }
    with bind(host, port) as taken:
        players = seat(
            {
                "planner": ModelConfig(planner, planner_tokenizer, **shared).load(Planner),
                "reasoner": ModelConfig(reasoner, reasoner_tokenizer, **shared).load(Reasoner),
            }
        )
        run(Service(players["planner"], players["reasoner"], rules, limits, name), taken, key, Console())  # type: ignore[arg-type]


def mount(app: typer.Typer) -> None:
    """Add the command to ``verl-rsim``."""
    app.command()(serve)
