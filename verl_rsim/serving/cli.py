"""The command ``serve``. Heavy modules are imported when it runs, so that ``--help`` stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verl_rsim.evaluation.play_options import MODEL_HELP, PlayOptions, takes_play_options


@takes_play_options
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
    play: PlayOptions = PlayOptions(),  # noqa: B008 (it is frozen)
) -> None:
    """Serve a planner and a reasoner through OpenAI's API, with a web page to watch them (docs/serving.md)."""
    from rich.console import Console

    from verl_rsim.evaluation.config import share_engines
    from verl_rsim.evaluation.models import Planner, Reasoner
    from verl_rsim.evaluation.trained_rules import resolve_rules
    from verl_rsim.serving.admission import ServeLimits, read_api_key
    from verl_rsim.serving.server import bind, run
    from verl_rsim.serving.service import Service

    console, given = Console(), play.given_rules()
    limits = ServeLimits(
        concurrency=concurrency, queue=queue, max_n=max_n, max_body=max_body, timeout=timeout, drain=drain
    )
    key = read_api_key(api_key_file)
    # The port is bound before the models are loaded: a port in use is reported at once, not after minutes.
    with bind(host, port) as listener:
        configs = {"planner": play.planner(planner), "reasoner": play.reasoner(reasoner)}
        resolved = resolve_rules({planner: configs["planner"].describe("planner")}, given)
        seats = {role: config.with_rules(resolved.trained, role) for role, config in configs.items()}
        resolved.show(console)
        models = share_engines(
            {"planner": seats["planner"].load(Planner), "reasoner": seats["reasoner"].load(Reasoner)}
        )
        service = Service(
            planner=models["planner"],  # type: ignore[arg-type]
            reasoner=models["reasoner"],  # type: ignore[arg-type]
            rules=resolved.rules,
            limits=limits,
            name=name,
        )
        run(service, listener, key, console)


def mount(app: typer.Typer) -> None:
    """Adds the command to ``verl-rsim``."""
    app.command()(serve)
