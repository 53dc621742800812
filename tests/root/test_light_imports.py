"""Commands that need no engine start fast: these modules import neither torch nor verl when they are loaded."""

from __future__ import annotations

import subprocess
import sys

LIGHT = (
    "cli",
    "config.schema",
    "core.dialogue",
    "core.episode_record",
    "core.prompts",
    "core.schedule",
    "core.strategies",
    "monitoring.alarms",
    "monitoring.console",
    "monitoring.episode_log",
    "monitoring.episode_viewer",
    "monitoring.metrics",
    "monitoring.report.write",
    "monitoring.strategy_metrics",
    "reward.math_grading.scorer",
    "reward.planner_reward",
    "training.checkpoint.store",
    "training.preflight.doctor",
    "training.preflight.hardware",
    "training.preflight.memory_estimate",
    "utils.artifact_folders",
    "utils.errors",
)


def test_light_modules_import_nothing_heavy():
    imports = "; ".join(f"import verl_rsim.{name}" for name in LIGHT)
    heavy = ("torch", "verl", "ray", "vllm", "transformers")
    code = f"import sys; {imports}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
