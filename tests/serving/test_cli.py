"""`verl-rsim serve` with what it cannot serve: a clear error within seconds, before any weights are loaded."""

from __future__ import annotations

import socket

import pytest
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.utils.errors import RsimError

HERE = "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--planner", "/nowhere/model"], "planner='/nowhere/model': there is no model here"),
        (["--reasoner", "./model"], "reasoner='./model': there is no model here"),
        (["--reasoner", "http://127.0.0.1:9"], "http://127.0.0.1:9: cannot be reached"),
        (["--reasoner", "http://me:hidden@host"], "carries a password"),
        (["--max-turns", "4000"], "leaves 0 of the reasoner's 2048 tokens"),
        (["--concurrency", "0"], "concurrency=0"),
        (["--host", "no.such.host.invalid"], "is no address of this machine"),
        (["--api-key-file", "/nowhere/key"], "cannot be read"),
        (["--template", "[]"], "must be a JSON object"),
    ],
)
def test_bad_input_is_named(home, monkeypatch, options, message):
    monkeypatch.setenv("RSIM_HOME", str(home))
    defaults = {"--planner": "tiny-qwen2", "--reasoner": "tiny-llama", "--port": "0"}
    given = defaults | dict([options])
    result = CliRunner().invoke(app, ["serve", *(part for pair in given.items() for part in pair)])
    assert isinstance(result.exception, RsimError), result.output
    assert message in str(result.exception)
    assert "hidden" not in str(result.exception)


def test_a_port_in_use_is_named():
    with socket.create_server((HERE, 0)) as other:
        port = str(other.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--planner", "x", "--reasoner", "y", "--port", port])
    assert f"port={port}: cannot be used on {HERE}" in str(result.exception)
