"""Maps data sources to the types of their answers, and checks ground truths.

It starts no process, so that data preparation can use it as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase

from verl_rsim.reward.math_grading.compare import AnswerType, require_usable, resolve
from verl_rsim.reward.verdict import TruthError
from verl_rsim.utils.errors import JobWarning

MAX_TRUTH_CHARS = 5000
DEFAULT_TYPE = AnswerType.MATH
"""Type of answers without a data source and, with a warning, of unknown sources."""

SOURCES: Mapping[str, AnswerType] = {
    "openai/gsm8k": AnswerType.NUMBER,
    "gsm8k": AnswerType.NUMBER,
    "arithmetic": AnswerType.NUMBER,
    "chain_sum": AnswerType.NUMBER,
    "reasoning_gym/arithmetic": AnswerType.NUMBER,
    "reasoning_gym/chain_sum": AnswerType.NUMBER,
    "math": AnswerType.MATH,
    "lighteval/MATH": AnswerType.MATH,
    "DigitalLearningGmbH/MATH-lighteval": AnswerType.MATH,
    "HuggingFaceH4/MATH-500": AnswerType.MATH,
    "math500": AnswerType.MATH,
    "math_dapo*": AnswerType.MATH,
    "aime*": AnswerType.MATH,
    "numina_*": AnswerType.MATH,
    "hiyouga/geometry3k": AnswerType.MATH,
    "*/aqua_rat": AnswerType.OPTION,
    "aqua_rat": AnswerType.OPTION,
    "aqua": AnswerType.OPTION,
    "mmlu_pro": AnswerType.OPTION,
    "TIGER-Lab/MMLU-Pro": AnswerType.OPTION,
    "TIGER-Lab/TheoremQA": AnswerType.AUTO,
    "TheoremQA": AnswerType.AUTO,
    "theoremqa": AnswerType.AUTO,
    "finqa": AnswerType.FINANCIAL,
    "FinQA": AnswerType.FINANCIAL,
    "*/finqa": AnswerType.FINANCIAL,
    "*/FinQA": AnswerType.FINANCIAL,
    "sums": AnswerType.INTEGER,
    "finance_synthetic": AnswerType.FINANCIAL,
    **{f"{kind.value}_synthetic": kind for kind in AnswerType},
}
"""``data_source`` (or a shell pattern of it) -> type of its answers: verl's names and this project's."""


class AnswerTypes:
    """Finds the type of a source's answers.

    Args:
        sources: ``data_source``, or a shell pattern of it -> type of its answers; takes precedence over
            :data:`SOURCES`.
    """

    def __init__(self, sources: Mapping[str, AnswerType] | None = None):
        self._patterns = [*(sources or {}).items(), *SOURCES.items()]
        self._types: dict[str, AnswerType] = {}

    def of(self, data_source: str | AnswerType | None) -> AnswerType:
        """Returns the type of a source's answers; for an unknown source the default, with one warning."""
        if isinstance(data_source, AnswerType):
            return data_source
        if data_source is None:
            return DEFAULT_TYPE
        if data_source not in self._types:
            found = next((kind for pattern, kind in self._patterns if fnmatchcase(data_source, pattern)), None)
            if found is None:
                warnings.warn(
                    f"data_source {data_source!r} has no answer type: its answers are scored as "
                    f"{DEFAULT_TYPE.value!r}; name it in rsim.scoring.answer_types",
                    JobWarning,
                    stacklevel=3,
                )
            self._types[data_source] = found or DEFAULT_TYPE
        return self._types[data_source]

    def check_truth(self, truth: str, data_source: str | AnswerType | None = None) -> AnswerType:
        """Checks a ground truth and returns the type of its answers, with AUTO resolved.

        Raises:
            TruthError: the ground truth cannot be used: it is empty, too long, or not of its type.
        """
        if len(truth) > MAX_TRUTH_CHARS:
            raise TruthError(f"ground truth {truth[:80]!r}... has {len(truth)} characters, more than {MAX_TRUTH_CHARS}")
        kind = resolve(self.of(data_source), truth)
        require_usable(kind, truth)
        return kind
