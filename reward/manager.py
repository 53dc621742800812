"""verl's reward managers ``rsim_math``, ``rsim_code`` and ``rsim``, which tells the two apart row by row.

They score the reasoner's answer, in rSIM jobs and in plain verl jobs alike; the planner's reward is added by the
rollout, from ``acc``. Settings: the block ``rsim.scoring`` (in a plain verl job: ``+rsim.scoring.sandbox=...``).
Each of verl's ``reward.num_workers`` reward workers has a manager, with workers and sandboxes of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from verl_rsim.reward.code_grading.scorer import CodeScorer
from verl_rsim.reward.config import ScoringConfig, parse_scoring
from verl_rsim.reward.math_grading.scorer import MathScorer
from verl_rsim.reward.sandbox.base import Sandbox, SandboxError
from verl_rsim.reward.scorer import is_coding_task, make_math_scorer, make_sandbox
from verl_rsim.reward.verdict import TruthError, Verdict
from verl_rsim.utils.errors import ConfigError


def build_sandbox(config: Any) -> Sandbox:
    """The sandbox of a configuration; it has run one program when this returns.

    Args:
        config: the whole configuration; reads ``rsim.scoring`` and verl's ``reward.sandbox_fusion.url``.

    Raises:
        ConfigError, SandboxError: it cannot work here; the message says what to do.
    """
    return make_sandbox(scoring_of(config), OmegaConf.select(config, "reward.sandbox_fusion.url"))


def scoring_of(config: Any) -> ScoringConfig:
    """The validated block ``rsim.scoring`` of a configuration, the defaults where it has none."""
    block = OmegaConf.select(config, "rsim.scoring")
    return parse_scoring(OmegaConf.to_container(block, resolve=True) if block is not None else {})


class Lane:
    """A scorer and the threads that wait for it, so that slow programs do not hold up answers.

    Args:
        name: of the threads.
        make: makes the scorer, once, when it is first needed; an error of it is raised again for every row.
        threads: answers on their way through the scorer at once; further ones wait.
    """

    def __init__(self, name: str, make: Callable[[], MathScorer | CodeScorer], threads: int):
        self._make, self._threads = make, ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._made: MathScorer | CodeScorer | Exception | None = None
        self._asked = 0

    @property
    def asked(self) -> int:
        """Answers that are being scored or wait."""
        return self._asked

    def scorer(self) -> MathScorer | CodeScorer:
        """The scorer; blocks while it is made."""
        with self._lock:
            if self._made is None:
                try:
                    self._made = self._make()
                except Exception as error:  # noqa: BLE001  whatever it is, every row's caller gets it
                    self._made = error
        if isinstance(self._made, Exception):
            raise self._made
        return self._made

    async def score(self, *row: str) -> Verdict:
        """Score a row in one of the lane's threads. A sandbox that fails gets a second chance."""
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._score, row)
        finally:
            self._asked -= 1

    def _score(self, row: tuple[str, ...]) -> Verdict:
        scorer = self.scorer()
        try:
            return scorer.score(*row)
        except SandboxError:
            return scorer.score(*row)


@register("rsim")
class RsimRewardManager(RewardManagerBase):
    """Scores coding tasks by their tests and everything else by its answer.

    A row whose ground truth cannot be used, and a sandbox that fails twice, raise: verl then drops the question and
    counts it (``rsim/failed``; in plain verl jobs ``training/rollout_failure``). A 0 would teach something false.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any):
        super().__init__(config, tokenizer, compute_score)
        if OmegaConf.select(config, "reward.custom_reward_function.path"):
            fix = "it would ignore reward.custom_reward_function; set the manager to naive"
            raise ConfigError("reward.reward_manager.name", config.reward.reward_manager.name, fix)
        self.scoring = scoring_of(config)
        self.math = Lane("score-answer", self._math_scorer, 4 * self.scoring.workers)
        self.code = Lane("score-program", self._code_scorer, self.scoring.workers)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score one episode by its last row.

        Returns:
            ``reward_score`` and, in ``reward_extra_info``, ``score``, ``acc`` (1 only if all is right), ``passed``
            (fraction of tests passed; ``acc`` where there are none), ``answered``, ``scorer_failed``,
            ``score_seconds`` (waiting included), ``score_queue`` (answers before it) and ``reason``.

        Raises:
            TruthError: the row has no usable ground truth.
            SandboxError: the sandbox failed.
        """
        row = data[-1:][0]
        width = row.batch["responses"].shape[-1]
        length = int(row.batch["attention_mask"][-width:].sum())
        text = self.tokenizer.decode(row.batch["responses"][:length], skip_special_tokens=True)
        fields = row.non_tensor_batch
        truth = truth_of(fields.get("reward_model"))
        source = str(fields.get("data_source"))
        is_code = self._is_code(source, fields.get("ability"))
        lane = self.code if is_code else self.math
        start, queue = time.monotonic(), lane.asked
        verdict = await (lane.score(text, truth) if is_code else lane.score(text, truth, source))
        passed = verdict.parts.get("passed", verdict.accuracy)
        score = passed if self.scoring.partial_credit else verdict.accuracy
        info = {
            "score": score,
            "acc": verdict.accuracy,
            "passed": passed,
            "answered": float(verdict.answered),
            "scorer_failed": float(not is_code and verdict.reason in ("timeout", "crash")),
            "score_seconds": time.monotonic() - start,
            "score_queue": float(queue),
            "reason": verdict.reason,
        }
        return {"reward_score": score, "reward_extra_info": info}

    def _is_code(self, source: str, ability: str | None) -> bool:
        return is_coding_task(source, ability)

    def _math_scorer(self) -> MathScorer:
        return make_math_scorer(self.scoring)

    def _code_scorer(self) -> CodeScorer:
        return CodeScorer(build_sandbox(self.config), self.scoring.workers)


def truth_of(reward_model: Any) -> str:
    """The ground truth of a row's ``reward_model``, as text.

    Raises:
        TruthError: there is none, or it is no text.
    """
    truth = (reward_model or {}).get("ground_truth")
    if isinstance(truth, int | float):
        truth = str(truth)
    if not isinstance(truth, str) or not truth:
        raise TruthError(f"reward_model.ground_truth is {truth!r}: give the row a text, or drop it")
    return truth


@register("rsim_math")
class RsimMathRewardManager(RsimRewardManager):
    """Scores every row by its answer."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.math.scorer()

    def _is_code(self, source: str, ability: str | None) -> bool:
        return False


@register("rsim_code")
class RsimCodeRewardManager(RsimRewardManager):
    """Scores every row by its tests."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.code.scorer()

    def _is_code(self, source: str, ability: str | None) -> bool:
        return True
