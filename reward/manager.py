"""verl's reward manager ``rsim_math``: the reasoner's answer, scored by :mod:`verl_rsim.reward.math_score`.

Works in plain verl jobs too. The planner's reward is added by the rollout, from this manager's ``acc``.
"""

from __future__ import annotations

from typing import Any

from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl_rsim.reward.math_score import MathScorer, default_workers


@register("rsim_math")
class RsimMathRewardManager(RewardManagerBase):
    """Scores the last row of an interaction against ``reward_model.ground_truth``."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any):
        super().__init__(config, tokenizer, compute_score)
        self.scorer = MathScorer(workers=default_workers())

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score one interaction.

        Returns:
            ``reward_score`` and, in ``reward_extra_info``, ``score``, ``acc`` and whether an answer was given.
        """
        row = data[-1:][0]
        width = row.batch["responses"].shape[-1]
        length = int(row.batch["attention_mask"][-width:].sum())
        ids, truth = row.batch["responses"][:length], str(row.non_tensor_batch["reward_model"]["ground_truth"])

        def score() -> dict[str, Any]:
            verdict = self.scorer.score(self.tokenizer.decode(ids, skip_special_tokens=True), truth)
            return {
                "score": verdict.accuracy,
                "acc": verdict.accuracy,
                "answered": float(verdict.answered),
                "scorer_failed": float(verdict.reason in ("timeout", "crash")),
            }

        info = await self.loop.run_in_executor(None, score)
        return {"reward_score": info["score"], "reward_extra_info": info}
