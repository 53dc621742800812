"""docs/architecture.md names code that exists, and all rooms in the order in which they may import each other."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PAGE = ROOT / "docs/architecture.md"
TEXT = PAGE.read_text()
LINKS = sorted(set(re.findall(r"\[([^\]]+)\]\((\.\./[^)]+)\)", TEXT)))
"""Every link to a file of the code: its text and its path."""
NAMED = [(name, path) for text, path in LINKS for name in re.findall(r"`([^`]+)`", text)]
"""Every name that stands as code in such a link, and the file that must hold it."""


def defined_names(tree: ast.Module | ast.ClassDef, prefix: str = "") -> set[str]:
    """Returns the functions, classes and variables of a module, and the members of its classes with a dot."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            names |= defined_names(node, f"{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(("text", "path"), LINKS)
def test_every_linked_file_exists(text, path):
    assert (PAGE.parent / path).is_file()


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_the_file_holds_the_name(name, path):
    file = PAGE.parent / path
    if file.suffix == ".py":
        assert name in defined_names(ast.parse(file.read_text()))
    else:
        assert name in file.read_text() or str(file).endswith(f"/{name}")


def test_the_page_names_enough_code_to_be_checked():
    assert len(NAMED) > 60


def rooms_of(folder: Path) -> set[str]:
    """Returns the packages in a folder, those behind links included; recipes hold no code."""
    return {init.parent.name for init in folder.glob("*/__init__.py")} - {"recipes"}


def test_every_room_is_in_the_table_in_import_order():
    rows = [line.split("|") for line in TEXT.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]]
    rooms = [cells[1].strip(" `/") for cells in rows]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert rooms == layers[:0:-1], "the order of import-linter, without the root files"
    assert set(rooms) == rooms_of(ROOT / "verl_rsim")
    for above, cells in zip(rooms, rows[1:], strict=False):
        assert cells[3].split("`")[1] == f"{above}/"
