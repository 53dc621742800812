"""The locks name everything CI installs, by version and hash, and nothing of the machine they were written on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

from verl_rsim.data.prepare_models import SMOLLM2_PACKAGE

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()


def pins(lock: Path) -> dict[str, str]:
    """Names and versions of a lock."""
    return {canonicalize_name(name): version for name, version in re.findall(r"^(\S+)==(\S+)", lock.read_text(), re.M)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_entry_is_one_version_with_its_hashes(lock):
    entries = re.split(r"^(?=\S)", re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.M), flags=re.M)
    wrong = [e for e in entries if e and not re.fullmatch(r"\S+==\S+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", e)]
    assert not wrong
    assert len(entries) > 2


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_place_is_named(lock):
    assert not re.search(r"://|index-url|find-links|(^|\s)(/|\.\.?/)", lock.read_text())


def test_the_lock_is_what_pyproject_asks_for():
    extras = re.search(r"^ALL_EXTRAS := (\S+)", MAKEFILE, re.M)[1].split(",")
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    asked += [line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]]
    for lock in LOCKS:
        if lock.name == "no-deps.txt":
            continue
        locked = pins(lock)
        for requirement in map(Requirement, asked):
            version = locked.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not in {lock.name}: make lock"
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, {version}: make lock"
        assert not set(PROJECT["tool"]["uv"]["exclude-dependencies"]) & set(locked)


def test_uv_and_the_model_are_locked_apart():
    lines = (ROOT / "locks/no-deps.in").read_text().split()
    assert SMOLLM2_PACKAGE in lines
    assert {f"{name}=={version}" for name, version in pins(ROOT / "locks/no-deps.txt").items()} == set(lines)


def test_ci_installs_from_a_lock():
    named = re.search(r"^export LOCK=(\S+)", (ROOT / ".ci/run").read_text(), re.M)
    assert (ROOT / named[1]).is_file()
