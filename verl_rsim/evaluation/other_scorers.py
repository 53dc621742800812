"""Scores answers by verl's own scorers and by math-verify, to compare their verdicts with this package's.

They run in a worker process that can be killed (:mod:`verl_rsim.reward.math_grading.worker_pool`), since each may hang
on a hostile text. verl, with torch, is imported there only.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Sequence

from verl_rsim.evaluation.grading_rows import GradingRow
from verl_rsim.reward.math_grading.worker_pool import TaskStatus, WorkerPool, serve_tasks
from verl_rsim.utils.errors import ConfigError

SCORERS = {"verl": ("verl", "pylatexenc"), "math_verify": ("math_verify",)}
"""Names of the scorers, and the packages that each needs."""
FALLBACK_SOURCE = "numina_olympiads"
"""Source by which verl scores rows without one that it knows: its scorer ``prime_math``, which accepts most."""
SECONDS, MEMORY_BYTES = 30.0, 64 << 30


class OtherScorers:
    """Scores rows by other scorers, one after the other.

    Raises:
        ConfigError: a name is unknown, or its package is missing.
    """

    def __init__(self, names: Sequence[str]):
        for name in names:
            if name not in SCORERS:
                raise ConfigError("--against", name, f"write one or more of {', '.join(SCORERS)}, with commas")
            for package in SCORERS[name]:
                if importlib.util.find_spec(package) is None:
                    raise ConfigError("--against", name, f"needs {package}; install it with: pip install {package}")
        self.names = tuple(names)
        self._pool = WorkerPool(__name__, 1, SECONDS, MEMORY_BYTES) if names else None

    def score(self, row: GradingRow) -> dict[str, bool | None]:
        """Returns the verdict of each scorer; None where it took too long or died, and for programs."""
        verdicts: dict[str, bool | None] = {}
        for name in self.names:
            verdicts[name] = None
            if self._pool is not None and row.ability != "code":
                result = self._pool.run(name, row.text, row.truth, str(row.columns.get("data_source") or ""))
                verdicts[name] = bool(result.value) if result.status is TaskStatus.DONE else None
        return verdicts

    def close(self) -> None:
        """Ends the worker."""
        if self._pool is not None:
            self._pool.close()


def score(name: str, text: str, truth: str, data_source: str) -> bool:
    """Does one task of the worker: returns True if a scorer accepts the text."""
    return _verl(text, truth, data_source) if name == "verl" else _math_verify(text, truth)


def _verl(text: str, truth: str, data_source: str) -> bool:
    from verl.utils.reward_score import default_compute_score

    try:
        score = default_compute_score(data_source, text, truth)
    except NotImplementedError:
        score = default_compute_score(FALLBACK_SOURCE, text, truth)
    if isinstance(score, dict):
        return bool(score.get("acc", score["score"] > 0))
    return score > 0


def _math_verify(text: str, truth: str) -> bool:
    """Returns math-verify's verdict with the settings of verl's ``math_verify``; the pool bounds its time."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    gold = parse(f"\\boxed{{{truth}}}", (LatexExtractionConfig(),), parsing_timeout=None)
    answer = parse(text, (ExprExtractionConfig(), LatexExtractionConfig()), parsing_timeout=None)
    return any(verify(one, other, timeout_seconds=None) for one in gold for other in answer)


def _accepts(name: str, text: str, truth: str, data_source: str) -> bool:
    try:
        return score(name, text, truth, data_source)
    except Exception:  # noqa: BLE001  an error of another scorer is a refusal, as in verl's own loop
        return False


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # Both print a warning for each text; it would bury the tables.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Before the first fork: the imports take longer than an answer may.
    for module in ("math_verify", "verl.utils.reward_score.prime_math"):
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            importlib.import_module(module)
    serve_tasks(_accepts)
