"""Every example runs, and is short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_one_interaction(home):
    models = [str(home / "models" / name) for name in ("tiny-qwen2", "tiny-llama")]
    command = [sys.executable, str(EXAMPLES / "one_interaction.py"), *models, "What is 2 + 3?"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ended by: " in done.stdout


@pytest.mark.e2e
def test_plan_and_answer(home):
    models = [str(home / "models" / name) for name in ("tiny-qwen2", "tiny-llama")]
    command = [sys.executable, str(EXAMPLES / "plan_and_answer.py"), *models, "What is 2 + 3?"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ended by: " in done.stdout


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) < 60 for path in EXAMPLES.glob("*.py"))
