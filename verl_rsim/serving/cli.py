"""The command ``serve``. Heavy modules are imported when it runs, so that ``--help`` stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from verl_rsim.evaluation.cli import MODEL_HELP, parse_json_option


def serve(
    planner: Annotated[str, typer.Option(help=MODEL_HELP)],
    reasoner: Annotated[str, typer.Option(help=MODEL_HELP)],
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one")] = 8000,
    name: Annotated[str, typer.Option(help="Name of the model for clients")] = "rsim",
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients must send; or set RSIM_SERVE_API_KEY")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Episodes played at once")] = 32,
    queue: Annotated[int, typer.Option(help="Episodes that may wait; more are rejected (429)")] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds a request may take, waiting included")] = 300.0,
    drain: Annotated[float, typer.Option(help="Seconds that running requests get at shutdown")] = 30.0,
    max_n: Annotated[int, typer.Option(help="Answers per request")] = 8,
    max_body: Annotated[int, typer.Option(help="Bytes of a request's body")] = 1 << 18,
    max_turns: Annotated[int, typer.Option(help="Turns of an episode")] = 6,
    max_step_tokens: Annotated[int, typer.Option(help="Tokens of a step")] = 128,
    max_answer_tokens: Annotated[int, typer.Option(help="Tokens of the final answer")] = 128,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Tokens of the question; default: as many as the context leaves")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens of a row; less where the model's context is shorter")] = 8192,
    injection: Annotated[str, typer.Option(help="inline or chat, as in training")] = "inline",
    delimiter: Annotated[
        str, typer.Option(help="Text that ends a step, as rsim.step_delimiter", show_default=False)
    ] = "\n\n",
    planner_decoding: Annotated[str, typer.Option(help="constrained or free, as in training")] = "constrained",
    planner_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a planner behind a URL")] = None,
    reasoner_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a reasoner behind a URL")] = None,
    template: Annotated[str, typer.Option(help="Arguments of both chat templates, as JSON")] = "{}",
    engine: Annotated[str, typer.Option(help="Arguments of vLLM's AsyncEngineArgs, as JSON")] = "{}",
) -> None:
    """Serve a planner and a reasoner through OpenAI's API, with a web page to watch them (docs/serving.md)."""
    from rich.console import Console

    from verl_rsim.evaluation.config import ModelConfig, share_engines
    from verl_rsim.evaluation.models import Planner, Reasoner
    from verl_rsim.evaluation.rules import Rules
    from verl_rsim.serving.admission import ServeLimits, read_api_key
    from verl_rsim.serving.server import bind, run
    from verl_rsim.serving.service import Service

    rules = Rules(
        max_turns=max_turns,
        max_step_tokens=max_step_tokens,
        max_answer_tokens=max_answer_tokens,
        max_prompt_tokens=max_prompt_tokens,
        injection=injection,
        delimiter=delimiter,
        planner_decoding=planner_decoding,
    )
    limits = ServeLimits(
        concurrency=concurrency, queue=queue, max_n=max_n, max_body=max_body, timeout=timeout, drain=drain
    )
    key = read_api_key(api_key_file)
    shared: dict[str, Any] = {
        "template_kwargs": parse_json_option("template", template),
        "engine_options": parse_json_option("engine", engine),
        "context": context,
    }
    # The port is bound before the models are loaded: a port in use is reported at once, not after minutes.
    with bind(host, port) as listener:
        models = share_engines(
            {
                "planner": ModelConfig(planner, planner_tokenizer, **shared).load(Planner),
                "reasoner": ModelConfig(reasoner, reasoner_tokenizer, **shared).load(Reasoner),
            }
        )
        service = Service(
            planner=models["planner"],  # type: ignore[arg-type]
            reasoner=models["reasoner"],  # type: ignore[arg-type]
            rules=rules,
            limits=limits,
            name=name,
        )
        run(service, listener, key, Console())


def mount(app: typer.Typer) -> None:
    """Adds the command to ``verl-rsim``."""
    app.command()(serve)
