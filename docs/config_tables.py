"""Writes the tables of docs/configuration.md from the configuration files: ``python docs/config_tables.py``.

A key's description is the comment above it or behind it. Its type is that of its field in :class:`RsimConfig`.
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
    """Describes a key of a YAML file.

    Attributes:
        key: dotted path.
        value: value as text of the file; None for a block of keys.
        description: the key's comments.
    """

    key: str
    value: str | None
    description: str


def settings(path: Path) -> Iterator[Setting]:
    """Yields all keys of a file, each block before its keys."""
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
        parts = [comment.strip().removeprefix("#").strip() for comment in comments]
        description = " ".join(part for part in parts if part)
        name = f"{prefix}{key.value}"
        yield Setting(name, None if is_block else text[value.start_mark.index : value.end_mark.index], description)
        if is_block:
            yield from _settings(text, lines, value, f"{name}.")


def type_of(key: str) -> str:
    """Returns the type of a key of the ``rsim`` block, in words."""
    hint: typing.Any = RsimConfig
    for name in key.split("."):
        hint = typing.get_type_hints(hint)["weight" if name == "lambda" else name]
    if is_dataclass(hint):
        return ", ".join(typing.get_type_hints(hint))
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (typing.get_origin(hint) or hint,)
    return " or ".join(WORDS[part] for part in parts)


def rsim_tables() -> str:
    """Returns the table of the keys of ``rsim`` itself, then a section for each of its blocks."""
    all_settings = list(settings(CONFIG / "rsim.yaml"))
    text = _table([setting for setting in all_settings if "." not in setting.key and setting.value is not None])
    for block in (setting for setting in all_settings if setting.value is None):
        rows = [setting for setting in all_settings if setting.key.startswith(f"{block.key}.")]
        text += f"\n### rsim.{block.key}\n\n{_cell(block.description)}\n\n{_table(rows)}"
    return text


def _table(rows: list[Setting]) -> str:
    text = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
    for row in rows:
        text += f"| `rsim.{row.key}` | {type_of(row.key)} | `{row.value}` | {_cell(row.description)} |\n"
    return text


def verl_table() -> str:
    """Returns the table of verl's keys that ``rsim_base.yaml`` sets."""
    text = "| key | set to | why |\n| --- | --- | --- |\n"
    for row in settings(CONFIG / "rsim_base.yaml"):
        if row.value is not None and row.key != "defaults":
            value = re.sub(r"\$\{(.*)\}", r"\1", row.value).replace("???", "")
            text += f"| `{row.key}` | {f'`{value}`' if value else 'you name it'} | {_cell(row.description)} |\n"
    return text


def _cell(description: str) -> str:
    """Returns a description as a table cell, with links to the pages that it names."""
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", description.replace("|", r"\|"))


def page() -> str:
    """Returns the page with the tables of the current configuration files."""
    text = PAGE.read_text()
    for name, table in (("rsim", rsim_tables()), ("verl", verl_table())):
        match = re.search(f"<!-- {name}: .*? -->\n(.*?)<!-- end -->", text, re.DOTALL)
        if not match:
            raise ValueError(f"{PAGE} has no marks for the table {name}: add <!-- {name}: ... --> and <!-- end -->")
        text = f"{text[: match.start(1)]}\n{table}\n{text[match.end(1) :]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
