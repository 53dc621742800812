"""The order of the rooms is a contract: import-linter refuses an import that breaks it, and names the rule."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.slow

LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil, without the links that would lead back to the repository."""
    ignored = shutil.ignore_patterns("__pycache__", "recipes")
    shutil.copytree(ROOT / "verl_rsim", tmp_path / "verl_rsim", ignore=ignored, symlinks=False)
    shutil.copytree(ROOT / "recipes", tmp_path / "verl_rsim/recipes", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("core/dialogue.py", "import verl_rsim.training.policy", "Rooms import downwards only"),
        ("reward/verdict.py", "import verl_rsim.config.schema", "Rooms import downwards only"),
        ("core/strategies.py", "import torch", "The method and the grading import no torch"),
        ("training/job_config.py", "import verl_rsim.training.policy", "No import cycles"),
        ("training/policy.py", "import verl_rsim.cli", "Rooms import downwards only"),
    ],
)
def test_a_forbidden_import_is_refused_by_its_rule(copy: Path, module: str, line: str, rule: str):
    file = copy / "verl_rsim" / module
    file.write_text(file.read_text().replace("from __future__ import annotations\n", f"{line}\n", 1))
    done = lint(copy)
    assert done.returncode != 0
    broken = [text for text in done.stdout.splitlines() if text.endswith("BROKEN") or "BROKEN (" in text]
    assert any(text.startswith(rule) for text in broken), done.stdout


def test_the_package_keeps_its_rules():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
