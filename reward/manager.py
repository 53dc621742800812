"""verl's reward managers ``rsim_math``, ``rsim_code`` and ``rsim``, which tells the two apart row by row.

They score the reasoner's answer, in rSIM jobs and in plain verl jobs alike; the planner's reward is added by the
rollout, from ``acc``. Settings: the block ``rsim.scoring`` (in a plain verl job: ``+rsim.scoring.sandbox=...``).
Each of verl's ``reward.num_workers`` reward workers has a manager, with workers and sandboxes of its own.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any

from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl_rsim.reward.answers import AnswerType
from verl_rsim.reward.code_score import CodeScorer
from verl_rsim.reward.math_score import MathScorer
from verl_rsim.reward.sandbox import Sandbox, SandboxLimits
from verl_rsim.reward.verdict import TruthError, Verdict

from verl_rsim.errors import ConfigError
from verl_rsim.settings import ScoringConfig, parse_scoring

CODE_SOURCES = ("*humaneval*", "*mbpp*", "codecontests", "apps", "codeforces", "taco")
"""``data_source`` patterns of coding tasks; rows with ``ability: code`` are coding tasks whatever their source."""


def build_sandbox(config: Any) -> Sandbox:
    """The sandbox of a configuration; it has run one program when this returns.

    Args:
        config: the whole configuration; reads ``rsim.scoring`` and verl's ``reward.sandbox_fusion.url``.

    Raises:
        ConfigError, SandboxError: it cannot work here; the message says what to do.
    """
    scoring = scoring_of(config)
    limits = SandboxLimits(
        wall_seconds=scoring.code_seconds,
        cpu_seconds=max(1, round(scoring.code_seconds)),
        memory_bytes=scoring.code_memory_mb << 20,
    )
    url = OmegaConf.select(config, "reward.sandbox_fusion.url") if scoring.sandbox == "fusion" else None
    if scoring.sandbox == "fusion" and not url:
        raise ConfigError("reward.sandbox_fusion.url", url, "rsim.scoring.sandbox=fusion needs the service's URL")
    return Sandbox.create(scoring.sandbox, limits, url)


def scoring_of(config: Any) -> ScoringConfig:
    """The validated block ``rsim.scoring`` of a configuration, the defaults where it has none."""
    block = OmegaConf.select(config, "rsim.scoring")
    return parse_scoring(OmegaConf.to_container(block, resolve=True) if block is not None else {})


def is_coding_task(data_source: str, ability: str | None) -> bool:
    """Whether a row is a coding task."""
    return ability == "code" or any(fnmatchcase(data_source.lower(), pattern) for pattern in CODE_SOURCES)


@register("rsim")
class RsimRewardManager(RewardManagerBase):
    """Scores coding tasks by their tests and everything else by its answer.

    A row whose ground truth cannot be used, and a sandbox that fails, raise: the interaction is excluded and counted
    (``rsim/failed``), since a 0 would teach something false.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any):
        super().__init__(config, tokenizer, compute_score)
        if OmegaConf.select(config, "reward.custom_reward_function.path"):
            fix = "it would ignore reward.custom_reward_function; set the manager to naive"
            raise ConfigError("reward.reward_manager.name", config.reward.reward_manager.name, fix)
        self.scoring = scoring_of(config)
        self._threads = ThreadPoolExecutor(2 * self.scoring.workers, thread_name_prefix="rsim-score")

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score one interaction by its last row.

        Returns:
            ``reward_score`` and, in ``reward_extra_info``, ``score``, ``acc`` (1 only if all is right), ``passed``
            (fraction of tests passed; ``acc`` where there are none), ``answered``, ``scorer_failed``,
            ``score_seconds`` (waiting for a free worker included), and ``reason``.

        Raises:
            TruthError: the row has no usable ground truth.
            SandboxError: the sandbox failed.
        """
        row = data[-1:][0]
        width = row.batch["responses"].shape[-1]
        length = int(row.batch["attention_mask"][-width:].sum())
        text = self.tokenizer.decode(row.batch["responses"][:length], skip_special_tokens=True)
        fields = row.non_tensor_batch
        truth = (fields.get("reward_model") or {}).get("ground_truth")
        if truth in (None, ""):
            raise TruthError("a row has no reward_model.ground_truth: give it one, or drop it")
        source, ability = str(fields.get("data_source")), fields.get("ability")
        is_code = self._is_code(source, ability)
        # Made here, in the loop's thread, if it is the first of its kind: no two threads make one each.
        scorer = self.code.score if is_code else partial(self.math.score, data_source=source)
        start = time.monotonic()
        verdict: Verdict = await self.loop.run_in_executor(self._threads, scorer, text, str(truth))
        passed = verdict.parts.get("passed", verdict.accuracy)
        score = passed if self.scoring.partial_credit else verdict.accuracy
        info = {
            "score": score,
            "acc": verdict.accuracy,
            "passed": passed,
            "answered": float(verdict.answered),
            "scorer_failed": float(not is_code and verdict.reason in ("timeout", "crash")),
            "score_seconds": time.monotonic() - start,
            "reason": verdict.reason,
        }
        return {"reward_score": score, "reward_extra_info": info}

    def _is_code(self, source: str, ability: str | None) -> bool:
        return is_coding_task(source, ability)

    @cached_property
    def math(self) -> MathScorer:
        """Started when first needed."""
        scoring = self.scoring
        types = {source: AnswerType(kind) for source, kind in scoring.answer_types.items()}
        return MathScorer(scoring.workers, scoring.math_seconds, types, scoring.tolerance)

    @cached_property
    def code(self) -> CodeScorer:
        """Started when first needed."""
        return CodeScorer(build_sandbox(self.config), self.scoring.workers)


@register("rsim_math")
class RsimMathRewardManager(RsimRewardManager):
    """Scores every row by its answer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _ = self.math

    def _is_code(self, source: str, ability: str | None) -> bool:
        return False


@register("rsim_code")
class RsimCodeRewardManager(RsimRewardManager):
    """Scores every row by its tests."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _ = self.code

    def _is_code(self, source: str, ability: str | None) -> bool:
        return True
