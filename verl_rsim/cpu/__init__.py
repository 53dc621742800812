"""Running verl and vLLM on a machine without an accelerator. Active only when ``VERL_PLATFORM=cpu``."""

import os


def is_chosen() -> bool:
    """Whether the user chose the CPU platform for this process."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
