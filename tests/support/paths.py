"""Paths of the repository and of the tests' fixtures."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures"
SUPPORT = ROOT / "tests/support"
