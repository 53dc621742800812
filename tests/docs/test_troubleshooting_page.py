"""Every message that docs/troubleshooting.md quotes is one that the code can raise."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from support.paths import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()


def quoted(header: str) -> list[str]:
    """What the first cells of the tables with this header quote."""
    tables = re.findall(rf"^\| {header} \|.*\n\|[- |]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [line.split("|")[1] for table in tables for line in table.splitlines()]
    return list(dict.fromkeys(re.findall(r"`(.+?)`", "\n".join(cells))))


def messages(file: Path) -> Iterable[str]:
    """A module's strings, those of several parts as one; … stands for what an f-string fills in."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield "".join(map(str, parts))


@cache
def of_this_package() -> str:
    files = [*ROOT.glob("verl_rsim/**/*.py"), *ROOT.glob("reward/**/*.py")]
    return "\n".join(text for file in files for text in messages(file))


def of_package(name: str, first_words: str) -> str:
    folder = Path(importlib.util.find_spec(name).origin).parent
    files = [file for file in folder.rglob("*.py") if first_words in file.read_text(errors="replace")]
    return "\n".join(text for file in files for text in messages(file))


@pytest.mark.parametrize("message", quoted("message"))
def test_this_package_can_say_it(message):
    assert message in of_this_package()


@pytest.mark.parametrize("message", quoted("message of verl or vLLM"))
def test_verl_or_vllm_can_say_it(message):
    first = message.partition("…")[0].strip(" '")
    assert any(message in of_package(name, first) for name in ("verl", "vllm"))


def test_every_alarm_is_there():
    from verl_rsim.monitoring.alarms import RULES

    assert not [name for name, rule in RULES.items() if rule.description.partition(" 20 ")[0] not in PAGE]
