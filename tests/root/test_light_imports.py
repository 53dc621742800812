"""The core imports neither torch nor verl nor ray, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

CORE = (
    "cli",
    "checkpoint",
    "dialogue",
    "doctor",
    "episode_log",
    "episodes",
    "errors",
    "console",
    "folders",
    "alarms",
    "machine",
    "metrics",
    "preflight",
    "prompts",
    "replay",
    "report.write",
    "schedule",
    "settings",
    "strategies",
    "strategy_metrics",
    "reward.math_score",
    "reward.planner_score",
)


def test_core_imports_nothing_heavy():
    imports = "; ".join(f"import verl_rsim.{name}" for name in CORE)
    heavy = ("torch", "verl", "ray", "vllm", "transformers")
    code = f"import sys; {imports}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
