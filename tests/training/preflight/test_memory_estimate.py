"""Compares the estimate with computations by hand and with measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verl_rsim.training.preflight.memory_estimate import GIB, ModelSize, RolePlan, estimate, peaks

QWEN = ModelSize(parameters=500_000_000, layers=24, hidden=1000, vocabulary=150_000)
SMOLLM2 = ModelSize(parameters=134_515_008, layers=30, hidden=576, vocabulary=49_152)
TINY = ModelSize(parameters=400_000, layers=2, hidden=128, vocabulary=365)


def sizes(terms) -> dict[str, int]:
    return {term.name: term.size for term in terms}


def test_one_gpu_of_two_by_hand():
    reasoner = RolePlan("reasoner", QWEN, ranks=2, reference=True, compute_bytes=2, micro_tokens=4000,
                        server_bytes_allowed=40 * GIB, sleeps=True)  # fmt: skip
    terms = estimate([reasoner, RolePlan("planner", TINY, trained=False)], cpu=False)
    found = sizes(terms)
    assert found["reasoner's weights"] == found["reasoner's gradients"] == 10**9
    assert "reasoner's reference" not in found, "verl keeps it in host memory"
    assert found["reasoner's optimizer"] == 2 * 10**9
    assert found["reasoner's gathered weights"] == 2 * 500_000_000 // 24 * 2, "two of 24 layers, in 16 bits"
    assert found["reasoner's activations"] == (24 + 17) * 4000 * 1000 * 2
    assert found["reasoner's logits"] == 4000 * 150_000 * 12
    assert not any("planner's w" in name or "planner's o" in name for name in found), "a frozen role trains nothing"
    held = 3 * 10**9
    assert peaks(terms) == {
        "rollout": held + 40 * GIB,
        "reasoner update": held + 10**9 + 2 * (10**9 // 24) + 328 * 10**6 + 7200 * 10**6,
    }


@pytest.mark.parametrize("on_cpu", [False, True])
def test_an_adapter_alone_is_trained_and_the_reference_is_the_model_without_it(on_cpu):
    plan = RolePlan("planner", QWEN, adapter=5_000_000, reference=True, micro_tokens=10)
    found = sizes(estimate([plan], cpu=on_cpu))
    assert found["planner's weights"] == 505_000_000 * 4
    assert (found["planner's optimizer"], found["planner's gradients"]) == (40_000_000, 20_000_000)
    assert "planner's reference" not in found
    assert sizes(estimate([replace(plan, adapter=0)], cpu=True))["planner's reference"] == 2 * 10**9


def test_what_is_offloaded_is_there_in_the_update_alone():
    plan = RolePlan(
        "planner", QWEN, micro_tokens=10, all_logits=False, weights_offloaded=True, optimizer_offloaded=True
    )
    terms = estimate([plan], cpu=False)
    assert {term.phase for term in terms} == {"planner update"}
    assert "planner's logits" not in sizes(terms), "nine words"


def test_activations_without_checkpointing_are_kept_in_every_layer():
    plan = RolePlan("planner", QWEN, micro_tokens=10, checkpointing=False)
    assert sizes(estimate([plan], cpu=False))["planner's activations"] == 24 * 17 * 10 * 1000 * 4


def on_cpu(
    model: ModelSize, tokens: dict[str, int], bucket: int, cache: int = GIB, resharded: bool = True
) -> list[RolePlan]:
    common = {"cache_bytes": cache, "bucket_bytes": bucket, "resharded": resharded}
    return [
        RolePlan(role, model, micro_tokens=n, all_logits=role == "reasoner", **common) for role, n in tokens.items()
    ]


def test_a_machine_without_gpus_holds_all_shards_and_all_processes():
    plans = on_cpu(TINY, {"planner": 100, "reasoner": 100}, 0)
    one, two = (sizes(estimate([replace(p, servers=n, ranks=n) for p in plans], cpu=True)) for n in (1, 2))
    assert one["planner's weights"] == two["planner's weights"] == TINY.parameters * 4
    assert two["planner's activations"] == 2 * one["planner's activations"]
    assert two["processes"] - one["processes"] == 8 * GIB // 2, "a trainer and three processes of a server, twice"


@pytest.mark.parametrize(
    ("plans", "measured"),
    [
        (on_cpu(TINY, {"planner": 4096, "reasoner": 4096}, 1_600_000, GIB // 4), 9.4),
        (on_cpu(SMOLLM2, {"planner": 1280, "reasoner": 640}, 256 << 20, GIB // 2, resharded=False), 17.3),
    ],
    ids=["tiny", "quickstart"],
)
def test_the_estimate_is_within_a_fifth_of_what_was_measured(plans, measured):
    """Measured in GiB: the proportional set size of all the job's processes, at its peak (docs/preflight.md)."""
    found = max(peaks(estimate(plans, cpu=True, reward_workers=1, agents=1)).values()) / GIB
    assert found == pytest.approx(measured, rel=0.2)
