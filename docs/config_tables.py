"""Writes the tables of docs/configuration.md from the configuration's files: ``python docs/config_tables.py``.

A key's description is the comment above it or behind it; its type is that of the dataclass it is read into.
"""

from __future__ import annotations

import collections.abc
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from verl_rsim.config.schema import RsimConfig

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/configuration.md"
CONFIG = ROOT / "verl_rsim/config"
WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", tuple: "list", types.NoneType: "null"}
WORDS |= {collections.abc.Mapping: "mapping", typing.Any: "text or list"}


@dataclass(frozen=True)
class Setting:
    """A key of a YAML file.

    Attributes:
        key: dotted path.
        value: as the file has it; None for a block of further keys.
        description: its comments.
    """

    key: str
    value: str | None
    description: str


def settings(path: Path) -> Iterator[Setting]:
    """All keys of a file, blocks before their own keys."""
    text = path.read_text()
    yield from _settings(text, text.splitlines(), yaml.compose(text), "")


def _settings(text: str, lines: list[str], block: yaml.MappingNode, prefix: str) -> Iterator[Setting]:
    for key, value in block.value:
        first = key.start_mark.line
        start = first
        while start and lines[start - 1].strip().startswith("#"):
            start -= 1
        is_block = isinstance(value, yaml.MappingNode) and not value.flow_style
        mark = key.end_mark if is_block else value.end_mark
        comments = [*lines[start:first], lines[mark.line][mark.column :].lstrip(":")]
        description = " ".join(part for comment in comments if (part := comment.strip().removeprefix("#").strip()))
        name = f"{prefix}{key.value}"
        yield Setting(name, None if is_block else text[value.start_mark.index : value.end_mark.index], description)
        if is_block:
            yield from _settings(text, lines, value, f"{name}.")


def type_of(key: str) -> str:
    """The type of a key of the ``rsim`` block, in words."""
    hint: typing.Any = RsimConfig
    for name in key.split("."):
        hint = typing.get_type_hints(hint)["weight" if name == "lambda" else name]
    if is_dataclass(hint):
        return ", ".join(typing.get_type_hints(hint))
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (typing.get_origin(hint) or hint,)
    return " or ".join(WORDS[part] for part in parts)


def rsim_tables() -> str:
    """The keys of ``rsim`` itself, then a section for each of its blocks."""
    found = list(settings(CONFIG / "rsim.yaml"))
    text = _table([setting for setting in found if "." not in setting.key and setting.value is not None])
    for block in (setting for setting in found if setting.value is None):
        rows = [setting for setting in found if setting.key.startswith(f"{block.key}.")]
        text += f"\n### rsim.{block.key}\n\n{_cell(block.description)}\n\n{_table(rows)}"
    return text


def _table(rows: list[Setting]) -> str:
    text = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
    for row in rows:
        text += f"| `rsim.{row.key}` | {type_of(row.key)} | `{row.value}` | {_cell(row.description)} |\n"
    return text


def verl_table() -> str:
    """The keys of verl's that ``rsim_base.yaml`` sets."""
    text = "| key | set to | why |\n| --- | --- | --- |\n"
    for row in settings(CONFIG / "rsim_base.yaml"):
        if row.value is not None and row.key != "defaults":
            value = re.sub(r"\$\{(.*)\}", r"\1", row.value).replace("???", "")
            text += f"| `{row.key}` | {f'`{value}`' if value else 'you name it'} | {_cell(row.description)} |\n"
    return text


def _cell(description: str) -> str:
    """A description as it stands in a table: pages named in it are links."""
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", description.replace("|", r"\|"))


def page() -> str:
    """The page with its tables as the configuration's files have them now."""
    text = PAGE.read_text()
    for name, table in (("rsim", rsim_tables()), ("verl", verl_table())):
        found = re.search(f"<!-- {name}: .*? -->\n(.*?)<!-- end -->", text, re.DOTALL)
        if not found:
            raise ValueError(f"{PAGE} has no place for the table {name}")
        text = f"{text[: found.start(1)]}\n{table}\n{text[found.end(1) :]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
