"""The reward managers, as verl's reward workers call them: with a padded batch of token ids."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from verl_rsim.utils.errors import ConfigError

pytestmark = pytest.mark.sandbox

CALLS = json.dumps({"fn_name": "double", "inputs": [[1], [2], [0]], "outputs": [2, 4, 0]})
RIGHT = "So:\n```python\ndef double(x):\n    return 2 * x\n```"
WRONG = "```python\ndef double(x):\n    return 0\n```"


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["llama"]


def score(name: str, tokenizer, rows: list[tuple[str, dict]], **config) -> list[dict]:
    """What the manager says of each (text, row fields), all scored at once."""
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    blocks = {"reward": {"reward_manager": {"name": name}, "custom_reward_function": {"path": config.pop("own", None)}}}
    blocks["rsim"] = {"scoring": config}

    async def run() -> list[dict]:
        manager = get_reward_manager_cls(name)(OmegaConf.create(blocks), tokenizer)
        return await asyncio.gather(*(manager.run_single(batch(tokenizer, text, fields)) for text, fields in rows))

    return asyncio.new_event_loop().run_until_complete(run())


def batch(tokenizer, text: str, fields: dict):
    """One row as verl builds it: the prompt padded on the left, the response on the right."""
    from verl import DataProto

    ids = tokenizer.encode(text, add_special_tokens=False)
    response = torch.tensor([ids + [0] * 7])
    mask = torch.tensor([[0, 1, 1] + [1] * len(ids) + [0] * 7])
    tensors = {"prompts": torch.tensor([[0, 5, 6]]), "responses": response, "attention_mask": mask}
    return DataProto.from_dict(tensors, {key: np.array([value], dtype=object) for key, value in fields.items()})


def row(truth: str | None, source: str = "arithmetic", ability: str = "math") -> dict:
    return {"data_source": source, "ability": ability, "reward_model": {"style": "rule", "ground_truth": truth}}


def test_one_manager_scores_answers_and_programs_side_by_side(tokenizer):
    rows = [
        (r"\boxed{4}", row("4")),
        (r"\boxed{5}", row("4")),
        ("no idea", row("4")),
        (RIGHT, row(CALLS, "own", "code")),
        (WRONG, row(CALLS, "openai/openai_humaneval", "")),
    ]
    found = [result["reward_extra_info"] for result in score("rsim", tokenizer, rows)]
    assert [info["acc"] for info in found] == [1, 0, 0, 1, 0]
    assert [info["passed"] for info in found] == pytest.approx([1, 0, 0, 1, 1 / 3])
    assert [info["answered"] for info in found] == [1, 1, 0, 1, 1]
    assert [info["reason"] for info in found] == ["right", "wrong", "no_answer", "right", "wrong"]
    assert len({tuple(info) for info in found}) == 1, "verl's validation needs the same keys in every row"


def test_answers_are_decoded_off_the_event_loop(tokenizer):
    """Else no other row goes on while a long answer is decoded."""
    import threading

    threads = []

    class Decoder:
        def decode(self, token_ids, *, skip_special_tokens: bool) -> str:
            threads.append(threading.current_thread())
            return tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

        encode = tokenizer.encode

    (result,) = score("rsim", Decoder(), [(r"\boxed{4}", row("4"))])
    assert result["reward_score"] == 1
    assert threads
    assert threading.main_thread() not in threads


def test_partial_credit_rewards_the_share_of_tests_passed(tokenizer):
    (result,) = score("rsim_code", tokenizer, [(WRONG, row(CALLS))], partial_credit=True)
    assert result["reward_score"] == pytest.approx(1 / 3)
    assert result["reward_extra_info"]["acc"] == 0


@pytest.mark.parametrize(
    ("name", "truth", "said"),
    [
        ("rsim", None, "ground_truth is None"),
        ("rsim", "", "ground_truth is ''"),
        ("rsim", np.array(["4", "5"]), "give the row a text"),
        ("rsim_code", "{", "ground truth"),
    ],
)
def test_a_row_without_usable_truth_is_an_error_not_a_zero(tokenizer, name, truth, said):
    from verl_rsim.reward.verdict import TruthError

    with pytest.raises(TruthError, match=said):
        score(name, tokenizer, [("4", row(truth))])


def test_slow_programs_do_not_hold_up_answers(tokenizer):
    forever = "```python\ndef double(x):\n    while True: pass\n```"
    rows = [(forever, row(CALLS, "own", "code"))] * 6 + [(r"\boxed{4}", row("4"))]
    *slow, quick = [result["reward_extra_info"] for result in score("rsim", tokenizer, rows, code_seconds=2)]
    assert [info["reason"] for info in slow] == ["timeout"] * 6
    assert quick["acc"] == 1
    assert quick["score_queue"] == 0
    assert [info["score_queue"] for info in slow] == list(range(6))


def test_a_sandbox_that_does_not_work_is_tried_once_and_reported_for_every_row(tokenizer, monkeypatch):
    from verl_rsim.reward import manager
    from verl_rsim.reward.sandbox.base import SandboxError

    tries = []

    def build(config):
        tries.append(config)
        raise SandboxError("no sandbox works here: install bubblewrap")

    monkeypatch.setattr(manager, "build_sandbox", build)
    for _ in range(2):
        with pytest.raises(SandboxError, match="install bubblewrap"):
            score("rsim", tokenizer, [(RIGHT, row(CALLS, "own", "code"))] * 2)
    assert len(tries) == 2, "once in each manager"


def test_a_sandbox_that_fails_once_gets_a_second_chance(tokenizer, monkeypatch):
    from verl_rsim.reward.code_grading.scorer import CodeScorer
    from verl_rsim.reward.sandbox.base import SandboxError

    real, calls = CodeScorer.score, []

    def flaky(self, *args):
        calls.append(args)
        if len(calls) == 1:
            raise SandboxError("out of processes")
        return real(self, *args)

    monkeypatch.setattr(CodeScorer, "score", flaky)
    (result,) = score("rsim_code", tokenizer, [(RIGHT, row(CALLS))])
    assert result["reward_score"] == 1


def test_answer_types_come_from_the_config(tokenizer):
    rows = [(r"\boxed{14.1\%}", row("0.141", "reports"))]
    (strict,) = score("rsim", tokenizer, rows, answer_types={"reports": "string"})
    (lenient,) = score("rsim", tokenizer, rows, answer_types={"reports": "financial"})
    assert (strict["reward_score"], lenient["reward_score"]) == (0, 1)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"own": "mine.py"}, "reward.reward_manager.name"),
        ({"sandbox": "docker"}, "rsim.scoring.sandbox"),
        ({"workers": 0}, "rsim.scoring.workers"),
        ({"answer_types": {"x": "poem"}}, "rsim.scoring.answer_types.x"),
        ({"tolerance": 2.0}, "rsim.scoring.tolerance"),
        ({"code_seconds": 0}, "rsim.scoring.code_seconds"),
        ({"sandbox": "fusion"}, "reward.sandbox_fusion.url"),
    ],
)
def test_settings_that_cannot_work_are_refused(tokenizer, config, key):
    with pytest.raises(ConfigError) as caught:
        score("rsim_code", tokenizer, [], **config)
    assert caught.value.key == key
