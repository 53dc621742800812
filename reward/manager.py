"""Registers verl's reward managers ``rsim_math``, ``rsim_code`` and ``rsim``, which chooses one of them row by row.

They score the reasoner's answer, in rSIM jobs and in plain verl jobs alike. The planner's reward is added by the
rollout, from ``acc``. Settings are in the block ``rsim.scoring`` (in a plain verl job: ``+rsim.scoring.sandbox=...``).
Each of verl's ``reward.num_workers`` reward workers has a manager, with workers and sandboxes of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

from omegaconf import DictConfig, OmegaConf
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


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that scoring needs; ``reward/`` does not import transformers."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        """Returns the text of some token ids."""


def build_sandbox(config: DictConfig) -> Sandbox:
    """Creates the sandbox of a configuration and runs one program in it.

    Args:
        config: the whole configuration; ``rsim.scoring`` and verl's ``reward.sandbox_fusion.url`` are read.

    Raises:
        ConfigError, SandboxError: the sandbox cannot work here; the message says what to do.
    """
    return make_sandbox(read_scoring_config(config), OmegaConf.select(config, "reward.sandbox_fusion.url"))


def read_scoring_config(config: DictConfig) -> ScoringConfig:
    """Returns the validated block ``rsim.scoring`` of a configuration, the defaults where it has none."""
    block = OmegaConf.select(config, "rsim.scoring")
    if block is None:
        return parse_scoring({})
    # to_container is annotated for lists and scalars as well; parse_scoring checks what is in the block.
    return parse_scoring(cast(Mapping[str, Any], OmegaConf.to_container(block, resolve=True)))


class ScoringQueue:
    """Runs a scorer in threads of its own, so that slow programs do not hold up answers.

    Args:
        name: name of the threads.
        create: creates the scorer when it is first needed; its error is raised again for every row.
        threads: number of rows that are scored at once; further ones wait.
    """

    def __init__(self, name: str, create: Callable[[], MathScorer | CodeScorer], threads: int):
        self._create, self._threads = create, ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._scorer: MathScorer | CodeScorer | Exception | None = None
        self._pending = 0

    @property
    def pending(self) -> int:
        """Number of rows that are being scored or wait."""
        return self._pending

    def scorer(self) -> MathScorer | CodeScorer:
        """Returns the scorer; blocks while it is created."""
        with self._lock:
            if self._scorer is None:
                try:
                    self._scorer = self._create()
                except Exception as error:  # noqa: BLE001  kept for every row's caller, else each would try again
                    self._scorer = error
        if isinstance(self._scorer, Exception):
            raise self._scorer
        return self._scorer

    async def score(self, *row: str) -> Verdict:
        """Scores a row in one of the threads; a sandbox that fails is tried a second time."""
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._score, row)
        finally:
            self._pending -= 1

    def _score(self, row: tuple[str, ...]) -> Verdict:
        scorer = self.scorer()
        try:
            return scorer.score(*row)
        except SandboxError:  # often a limit that was hit for a moment, such as the number of processes
            return scorer.score(*row)


@register("rsim")
class RsimRewardManager(RewardManagerBase):
    """Scores coding tasks by their tests and everything else by its answer.

    A ground truth that cannot be used, and a sandbox that fails twice, raise an error: verl then drops the question and
    counts it (``rsim/failed``; in plain verl jobs ``training/rollout_failure``). A score of 0 would teach falsehood.
    """

    def __init__(
        self,
        config: DictConfig,
        tokenizer: Tokenizer,
        compute_score: Callable[..., Any] | None = None,
        **_: Any,
    ):
        # verl annotates the tokenizer as AutoTokenizer, which is only a factory and has no instances.
        super().__init__(config, cast(Any, tokenizer), compute_score)
        if OmegaConf.select(config, "reward.custom_reward_function.path"):
            fix = "it would ignore reward.custom_reward_function; set the manager to naive"
            raise ConfigError("reward.reward_manager.name", config.reward.reward_manager.name, fix)
        self.scoring = read_scoring_config(config)
        # One thread: a tokenizer is not safe to use from several at once.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decode-answer")
        # More threads than workers for answers: a thread also extracts and checks while the workers compare.
        self.math = ScoringQueue("score-answer", self._math_scorer, 4 * self.scoring.workers)
        self.code = ScoringQueue("score-program", self._code_scorer, self.scoring.workers)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Scores one episode by its last row.

        Returns:
            ``reward_score`` and, in ``reward_extra_info``, ``score``, ``acc`` (1 only if all is right), ``passed``
            (fraction of tests passed; ``acc`` where there are none), ``answered``, ``scorer_failed``,
            ``score_seconds`` (with the wait), ``score_queue`` (rows ahead of it) and ``reason``.

        Raises:
            TruthError: the row has no usable ground truth.
            SandboxError: the sandbox failed twice.
        """
        row = data[-1:][0]
        width = row.batch["responses"].shape[-1]
        # The response is padded on the right; its tokens are those that the mask's last columns count.
        length = int(row.batch["attention_mask"][-width:].sum())
        # Not on the event loop: decoding a long answer takes milliseconds, in which no other row would go on.
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._decoder, self._decode, row.batch["responses"][:length])
        fields = row.non_tensor_batch
        truth = ground_truth_of(fields.get("reward_model"))
        source = str(fields.get("data_source"))
        is_code = self._is_code(source, fields.get("ability"))
        queue = self.code if is_code else self.math
        start, ahead = time.monotonic(), queue.pending
        verdict = await (queue.score(text, truth) if is_code else queue.score(text, truth, source))
        passed = verdict.parts.get("passed", verdict.accuracy)
        score = passed if self.scoring.partial_credit else verdict.accuracy
        info = {
            "score": score,
            "acc": verdict.accuracy,
            "passed": passed,
            "answered": float(verdict.answered),
            "scorer_failed": float(not is_code and verdict.reason in ("timeout", "crash")),
            "score_seconds": time.monotonic() - start,
            "score_queue": float(ahead),
            "reason": verdict.reason,
        }
        return {"reward_score": score, "reward_extra_info": info}

    def _decode(self, token_ids: Any) -> str:
        return cast(Tokenizer, self.tokenizer).decode(token_ids, skip_special_tokens=True)

    def _is_code(self, source: str, ability: str | None) -> bool:
        return is_coding_task(source, ability)

    def _math_scorer(self) -> MathScorer:
        return make_math_scorer(self.scoring)

    def _code_scorer(self) -> CodeScorer:
        return CodeScorer(build_sandbox(self.config), self.scoring.workers)


def ground_truth_of(reward_model: Mapping[str, object] | None) -> str:
    """Returns the ground truth in a row's ``reward_model``, as text.

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
        self.math.scorer()  # now, so that an error shows at start-up

    def _is_code(self, source: str, ability: str | None) -> bool:
        return False


@register("rsim_code")
class RsimCodeRewardManager(RsimRewardManager):
    """Scores every row by its tests."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.code.scorer()  # now, so that a sandbox that does not work is refused at start-up

    def _is_code(self, source: str, ability: str | None) -> bool:
        return True
