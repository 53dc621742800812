"""Where the repository and the tests' fixtures are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures"
SUPPORT = ROOT / "tests/support"
