"""What a training rollout takes from servers and rewards, and what it refuses."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest

from verl_rsim.core.episode import Request
from verl_rsim.training.vllm_sampler import ServerSampler


def ask(token_ids: list[int], log_probs: list[float], allowed: tuple[int, ...] | None = None):
    answer = SimpleNamespace(
        token_ids=token_ids, log_probs=log_probs, stop_reason="completed", extra_fields={}, num_preempted=None
    )

    class Client:
        async def generate(self, **_):
            return answer

    sampler = ServerSampler("planner", Client(), {}, None, vocabulary=100)
    return asyncio.run(sampler(Request((1, 2), 4, allowed_ids=allowed)))


def test_an_answer_is_taken_as_it_is():
    assert ask([0, 99], [-0.5, -0.1]).token_ids == (0, 99)


@pytest.mark.parametrize("token", [-1, 100])
def test_a_token_that_the_model_does_not_know_is_refused(token):
    with pytest.raises(RuntimeError, match=f"has the token id {token}, which it cannot have"):
        ask([5, token], [-0.5, -0.1])


def test_a_token_that_was_not_allowed_is_refused():
    assert ask([7], [-0.5], allowed=(7, 8)).token_ids == (7,)
    with pytest.raises(RuntimeError, match="has the token id 9"):
        ask([9], [-0.5], allowed=(7, 8))


def test_log_probs_that_are_nan_are_refused():
    with pytest.raises(RuntimeError, match="log-probs that are nan"):
        ask([5], [math.nan])


@pytest.mark.parametrize(
    ("reward", "extra", "message"),
    [
        (math.nan, {}, "a reward must be a finite number, and this is nan"),
        (0.0, {"reward_extra_info": {"acc": math.nan}}, "a reward must be a finite number, and its acc is nan"),
    ],
)
def test_a_reward_that_is_no_number_is_refused(monkeypatch, reward, extra, message):
    from verl_rsim.monitoring.watchdog.rollout_tracker import TRACKER
    from verl_rsim.training.agent_loop import RsimAgentLoopWorker

    TRACKER.errors.clear()

    async def scored(_worker, outputs, kwargs):
        outputs[-1].reward_score = reward
        outputs[-1].extra_fields |= extra

    monkeypatch.setattr(RsimAgentLoopWorker.__mro__[1], "_compute_score", scored)
    worker = object.__new__(RsimAgentLoopWorker)
    rows = [SimpleNamespace(reward_score=None, extra_fields={}) for _ in range(2)]
    with pytest.raises(ValueError, match=message):
        asyncio.run(worker._compute_score(rows, {}))
    assert [error.partition(": a")[0] for error in TRACKER.errors] == ["the reward: ValueError"]
