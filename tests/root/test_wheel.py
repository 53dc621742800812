"""The wheel holds every module, configuration and recipe of the repository, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.slow

PLACES = {"verl_rsim": "verl_rsim", "reward": "verl_rsim/reward", "recipes": "verl_rsim/recipes"}
SUFFIXES = {".py", ".yaml", ".md", ".html", ".css", ".js", ".json", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PLACES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(command, cwd=folder / "source", check=True, timeout=300)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_the_wheel_holds_what_the_repository_holds(wheel):
    expected = set()
    for name, place in PLACES.items():
        files = (path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES)
        expected |= {f"{place}/{file.as_posix()}" for file in files}
    assert {name for name in wheel if ".dist-info/" not in name} == expected


def test_the_wheel_registers_the_plugin_and_carries_the_licence(wheel):
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)
    assert any(name.endswith("LICENSE") for name in wheel)
