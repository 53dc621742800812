"""Scores answers: coding tasks by their tests, everything else by comparison with the ground truth.

The reward managers of training and the evaluation both use it. It does not import verl.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from functools import cached_property

from verl_rsim.reward.code_grading.scorer import CodeScorer
from verl_rsim.reward.config import ScoringConfig
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.scorer import MathScorer
from verl_rsim.reward.sandbox.base import Sandbox, SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.create import create_sandbox
from verl_rsim.reward.verdict import Verdict
from verl_rsim.utils.errors import ConfigError

CODE_SOURCES = ("*humaneval*", "*mbpp*", "codecontests", "apps", "codeforces", "taco")
"""``data_source`` patterns of coding tasks; rows with ``ability: code`` are coding tasks whatever their source."""


def is_coding_task(data_source: str, ability: str | None) -> bool:
    """Returns True if a row is a coding task."""
    return ability == "code" or any(fnmatchcase(data_source.lower(), pattern) for pattern in CODE_SOURCES)


def make_sandbox(scoring: ScoringConfig, fusion_url: str | None) -> Sandbox:
    """Creates the sandbox of a block ``rsim.scoring`` and runs one program in it.

    Args:
        scoring: the block.
        fusion_url: URL of the sandbox service, used if ``scoring.sandbox`` is "fusion".

    Raises:
        ConfigError, SandboxError: the sandbox cannot work here; the message says what to do.
    """
    limits = SandboxLimits(
        wall_seconds=scoring.code_seconds,
        # Twice the time, for programs with threads: the kernel ends a program at this limit, which looks like a crash.
        cpu_seconds=2 * math.ceil(scoring.code_seconds),
        memory_bytes=scoring.code_memory_mb << 20,
    )
    url = fusion_url if scoring.sandbox == "fusion" else None
    if scoring.sandbox == "fusion" and not url:
        fix = "rsim.scoring.sandbox=fusion needs the service's URL (in an evaluation fusion_url)"
        raise ConfigError("reward.sandbox_fusion.url", url, fix)
    return create_sandbox(scoring.sandbox, limits, url)


def make_math_scorer(scoring: ScoringConfig) -> MathScorer:
    """Creates the scorer of answers of a block ``rsim.scoring``."""
    types = {source: AnswerType(kind) for source, kind in scoring.answer_types.items()}
    return MathScorer(scoring.workers, scoring.math_seconds, types, scoring.tolerance)


class Scorer:
    """Scores answers and programs; each scorer starts when it is first needed, and is thread-safe from then on."""

    def __init__(self, scoring: ScoringConfig, fusion_url: str | None = None):
        self.scoring, self.fusion_url = scoring, fusion_url

    @cached_property
    def math(self) -> MathScorer:
        """The scorer of answers."""
        return make_math_scorer(self.scoring)

    @cached_property
    def code(self) -> CodeScorer:
        """The scorer of programs.

        Raises:
            ConfigError, SandboxError: no sandbox works here.
        """
        return CodeScorer(make_sandbox(self.scoring, self.fusion_url), self.scoring.workers)

    def score(self, text: str, truth: str, data_source: str, ability: str | None) -> Verdict:
        """Scores one answer; blocks while the workers are busy.

        Raises:
            TruthError: the ground truth cannot be used.
            SandboxError: the sandbox failed twice, which says nothing about the answer.
        """
        if not is_coding_task(data_source, ability):
            return self.math.score(text, truth, data_source)
        try:
            return self.code.score(text, truth)
        except SandboxError:  # often a limit that was hit for a moment, such as the number of processes
            return self.code.score(text, truth)

    def close(self) -> None:
        """Stops the scorers that were started."""
        for name in ("math", "code"):
            if name in self.__dict__:  # getattr would start a scorer that was never needed
                getattr(self, name).close()
