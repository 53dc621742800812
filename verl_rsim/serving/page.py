"""The page at ``/``: a question, and the strategies as they are chosen. It asks for nothing beyond this server."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response
from jinja2 import Environment, PackageLoader

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.serving.service import Service

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: only this server's own files are loaded, and only it is asked."""

_ASSETS = {
    "/page.js": ("verl_rsim.serving", "page.js", "text/javascript"),
    "/page.css": ("verl_rsim.serving", "page.css", "text/css"),
    "/report.css": ("verl_rsim.monitoring.report", "page.css", "text/css"),  # the same colours and turns as in reports
}


def add_routes(app: FastAPI, service: Service, asks_key: bool) -> None:
    """Serve the page and its files."""
    environment = Environment(loader=PackageLoader("verl_rsim.serving", "."), autoescape=True, trim_blocks=True)
    text = environment.get_template("page.html").render(
        name=service.name, rules=service.rules, strategies=STRATEGIES, asks_key=asks_key
    )
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}

    @app.get("/")
    async def page() -> Response:
        return Response(text, media_type="text/html", headers=headers)

    for path, asset in _ASSETS.items():
        _add_asset(app, path, *asset)


def _add_asset(app: FastAPI, path: str, package: str, name: str, media_type: str) -> None:
    content = files(package).joinpath(name).read_bytes()

    @app.get(path)
    async def asset() -> Response:
        return Response(content, media_type=media_type)
