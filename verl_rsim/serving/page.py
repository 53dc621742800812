"""The web page at ``/``: asks a question and shows the strategies as they are chosen."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response
from jinja2 import Environment, PackageLoader

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.serving.service import Service

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Restricts the page to files and requests of this server."""

_ASSETS = {
    "/page.js": ("verl_rsim.serving", "page.js", "text/javascript"),
    "/page.css": ("verl_rsim.serving", "page.css", "text/css"),
    "/report.css": ("verl_rsim.monitoring.report", "page.css", "text/css"),  # colours and turns as in reports
}


def add_routes(app: FastAPI, service: Service, requires_key: bool) -> None:
    """Adds the routes of the page and its files to ``app``."""
    environment = Environment(loader=PackageLoader("verl_rsim.serving", "."), autoescape=True, trim_blocks=True)
    text = environment.get_template("page.html").render(
        name=service.name, rules=service.rules, strategies=STRATEGIES, requires_key=requires_key
    )
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}

    @app.get("/")
    async def page() -> Response:
        return Response(text, media_type="text/html", headers=headers)

    for path, (package, name, media_type) in _ASSETS.items():
        _add_asset(app, path, package, name, media_type)


def _add_asset(app: FastAPI, path: str, package: str, name: str, media_type: str) -> None:
    content = files(package).joinpath(name).read_bytes()

    @app.get(path)
    async def asset() -> Response:
        return Response(content, media_type=media_type)
