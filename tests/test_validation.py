"""A job that cannot work is refused at start-up, by key, value and fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = """
import json, sys
from hydra import compose, initialize_config_module
from verl_rsim.validation import validate_job
from verl_rsim.errors import ConfigError
results = []
with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
    for overrides in json.load(sys.stdin):
        try:
            validate_job(compose("tiny", overrides=overrides))
            results.append(None)
        except ConfigError as error:
            results.append([error.key, str(error)])
print("RESULTS" + json.dumps(results))
"""

SHARED = ["rsim.shared_weights=true", "planner.model.path=null"]
CASES = {
    "the recipe itself": ([], None, ""),
    "both frozen": (["rsim.train=[]"], "rsim.train", "both policies are frozen"),
    "lambda": (["rsim.lambda=1.5"], "rsim.lambda", "must be a number in [0, 1]"),
    "unknown stage": (["rsim.schedule=leader_last"], "rsim.schedule", "choose one of leader_first"),
    "reward term": (
        ["rsim.reward.terms=[{name: brevity, path: nowhere.brevity}]"],
        "rsim.reward.terms.brevity",
        "name an importable function",
    ),
    "sandbox": (["rsim.scoring.sandbox=jail"], "rsim.scoring.sandbox", "choose one of auto, bubblewrap"),
    "sandbox without its service": (
        ["reward.reward_manager.name=rsim_code", "rsim.scoring.sandbox=fusion"],
        "reward.sandbox_fusion.url",
        "needs the service's URL",
    ),
    "coding tasks without a sandbox": (
        ["data.train_files=HOME/data/humaneval/train.parquet", "rsim.scoring.sandbox=fusion"],
        "reward.sandbox_fusion.url",
        "needs the service's URL",
    ),
    "unknown key": (["+rsim.max_turn=3"], "rsim.max_turn", "unknown key"),
    "stage without training": (
        ["rsim.train=[reasoner]"],
        "rsim.schedule[0]",
        "nothing is trained in this stage (frozen: planner)",
    ),
    "planner missing": (["planner.model.path=/nowhere"], "planner.model.path", "no model here"),
    "planner not named": (["planner.model.path=null"], "planner.model.path", "name the planner's model"),
    "reasoner missing": (["actor_rollout_ref.model.path=/nowhere"], "actor_rollout_ref.model.path", "no model here"),
    "labels": (["planner.model.path=HOME/models/no-labels"], "planner.model.path", "no single token for the strategy"),
    "critic": (["algorithm.adv_estimator=gae"], "algorithm.adv_estimator", "choose an estimator that needs none"),
    "an estimator without what it needs": (
        ["algorithm.adv_estimator=optimal_token_baseline"],
        "algorithm.adv_estimator",
        "no sums of squared probabilities",
    ),
    "the planner's, too": (["rsim.planner_adv_estimator=gdpo"], "rsim.planner_adv_estimator", "no rewards by name"),
    "ranks that cannot share a mini-batch": (
        ["trainer.n_gpus_per_node=3", "data.train_batch_size=4"],
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        "it must be a multiple of 3, the data-parallel ranks of this policy",
    ),
    "a row longer than a micro-batch": (
        ["planner.actor.ppo_max_token_len_per_gpu=1400"],
        "planner.actor.ppo_max_token_len_per_gpu",
        "allow rows of 1456 tokens; raise it to 1456",
    ),
    "the same of log-probs alone": (
        ["planner.rollout.log_prob_max_token_len_per_gpu=1000"],
        "planner.rollout.log_prob_max_token_len_per_gpu",
        "allow rows of 1456 tokens; raise it to 1456",
    ),
    "the same of the reference": (
        ["planner.actor.use_kl_loss=true", "planner.ref.log_prob_max_token_len_per_gpu=1000"],
        "planner.ref.log_prob_max_token_len_per_gpu",
        "raise it to 1456",
    ),
    "the same of shared weights": (
        [*SHARED, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1400"],
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "allow rows of 1456 tokens",
    ),
    "micro-batches that do not fit": (
        ["planner.actor.use_dynamic_bsz=false", "planner.actor.ppo_micro_batch_size_per_gpu=3"],
        "planner.actor.ppo_micro_batch_size_per_gpu",
        "must divide the 16 rows of a mini-batch on each of 1 data-parallel ranks",
    ),
    "resumed by other GPUs": (
        ["trainer.default_local_dir=HOME/saved-by-two", "trainer.resume_mode=auto"],
        "trainer.n_gpus_per_node",
        "the planner was saved by 2 GPUs",
    ),
    "no such file": (["data.train_files=/nowhere.parquet"], "data.train_files", "no such file"),
    "empty dataset": (["data.train_files=HOME/empty.parquet"], "data.train_files", "the dataset has no rows"),
    "no ground truth": (["data.val_files=HOME/no-truth.parquet"], "data.val_files", "2 of its rows have no"),
    "batch": (["data.train_batch_size=64"], "data.train_batch_size", "has only 32 rows"),
    "menu": (["planner.rollout.prompt_length=100"], "planner.rollout.prompt_length", "menu alone takes"),
    "context": (
        ["actor_rollout_ref.rollout.response_length=4000"],
        "actor_rollout_ref.rollout.response_length",
        "the model takes 2048",
    ),
    "no room for an instruction": (
        ["data.max_response_length=8"],
        "actor_rollout_ref.rollout.response_length",
        "the longest instruction alone takes",
    ),
    "group size": (["planner.rollout.n=2"], "planner.rollout.n", "must equal actor_rollout_ref.rollout.n"),
    "agent loop": (
        ["actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent"],
        "actor_rollout_ref.rollout.agent.default_agent_loop",
        "must be rsim",
    ),
    "tensor parallelism": (
        ["planner.rollout.tensor_model_parallel_size=2"],
        "planner.rollout.tensor_model_parallel_size",
        "a server needs 2 GPUs",
    ),
    "own reward function": (
        ["reward.custom_reward_function.path=mine.py"],
        "reward.reward_manager.name",
        "would ignore reward.custom_reward_function",
    ),
    "critic switched on": (["critic.enable=true"], "algorithm.adv_estimator", "choose an estimator that needs none"),
    "planner's critic": (
        ["rsim.planner_adv_estimator=gae"],
        "rsim.planner_adv_estimator",
        "an estimator that needs none",
    ),
    "no estimator": (["rsim.planner_adv_estimator=grop"], "rsim.planner_adv_estimator", "choose one of"),
    "remax": (["algorithm.adv_estimator=remax"], "algorithm.adv_estimator", "no baselines"),
    "group filter": (["algorithm.filter_groups.enable=true"], "algorithm.filter_groups.metric", "of both roles"),
    "shared weights": (SHARED, None, ""),
    "shared weights, free decoding": ([*SHARED, "rsim.planner_decoding=free"], None, ""),
    "shared weights of two models": (["rsim.shared_weights=true"], "planner.model.path", "has one model"),
    "shared weights, one frozen": ([*SHARED, "rsim.train=[reasoner]"], "rsim.train", "one model in both roles"),
    "shared weights on two pools": (
        [*SHARED, "rsim.planner_pool.enable=true"],
        "rsim.planner_pool.enable",
        "has one model",
    ),
    "shared weights, two temperatures": (
        [*SHARED, "planner.rollout.temperature=0.5"],
        "planner.rollout.temperature",
        "must equal actor_rollout_ref.rollout.temperature=1.0",
    ),
    "shared weights, fused kernels": (
        [*SHARED, "actor_rollout_ref.model.use_fused_kernels=true"],
        "actor_rollout_ref.model.use_fused_kernels",
        "must be False with constrained decoding",
    ),
    "shared weights, the planner's context": (
        [*SHARED, "planner.rollout.response_length=4000", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=5200"],
        "planner.rollout.response_length",
        "the model takes 2048",
    ),
    "top_p": (["planner.rollout.top_p=0.9"], "planner.rollout.top_p", "must be 1"),
    "reference": (
        [
            "planner.actor.use_kl_loss=true",
            "planner.actor.use_dynamic_bsz=false",
            "planner.actor.ppo_micro_batch_size_per_gpu=4",
            "planner.rollout.log_prob_micro_batch_size_per_gpu=4",
        ],
        "planner.ref.log_prob_micro_batch_size_per_gpu",
        "set it",
    ),
    "reference's micro-batches": (
        [
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=false",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=7",
        ],
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
        "must divide the ",
    ),
    "reference's micro-batches with lora": (
        [
            "actor_rollout_ref.model.lora_rank=4",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=false",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=7",
        ],
        None,
        "",
    ),
    "strategy": (["planner.actor.strategy=fsdp"], "planner.actor.strategy", "on a CPU only fsdp2"),
    "rollout engine": (["planner.rollout.name=sglang"], "planner.rollout.name", "has no allowed_token_ids"),
    "lora": (
        ["planner.model.lora_rank=8", "actor_rollout_ref.model.lora_rank=4", "planner.actor.use_kl_loss=true"],
        None,
        "",
    ),
    "Megatron's lora": (["planner.model.lora.rank=8"], "planner.model.lora.rank", "set planner.model.lora_rank"),
    "lora of the head": (
        ["planner.model.lora_rank=8", "planner.model.target_modules=[q_proj,lm_head]"],
        "planner.model.target_modules",
        "adapts lm_head",
    ),
    "lora of everything": (
        ["actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.target_modules='.*'"],
        "actor_rollout_ref.model.target_modules",
        "adapts model.embed_tokens",
    ),
    "lora of nothing": (
        ["planner.model.lora_rank=8", "planner.model.target_modules=[c_attn]"],
        "planner.model.target_modules",
        "not found in the base model",
    ),
    "lora too large to serve": (["planner.model.lora_rank=600"], "planner.model.lora_rank", "lora.merge=true"),
    "lora merged": (["planner.model.lora_rank=600", "planner.model.lora.merge=true"], None, ""),
    "lora layer by layer": (
        ["planner.model.lora_rank=8", "planner.rollout.layered_summon=true"],
        "planner.rollout.layered_summon",
        "load_format=safetensors",
    ),
    "no adapter": (
        ["planner.model.lora_rank=8", "planner.model.lora_adapter_path=/nowhere"],
        "planner.model.lora_adapter_path",
        "no adapter here",
    ),
    "adapter of another rank": (
        ["planner.model.lora_adapter_path=HOME/adapter"],
        "planner.model.lora_rank",
        "has rank 4; set the same",
    ),
    "adapter of another kind": (
        ["planner.model.lora_rank=4", "planner.model.lora_adapter_path=HOME/adapter"],
        "planner.model.lora_adapter_path",
        "has use_rslora, which verl does not save",
    ),
    "adapter of a frozen role": (
        ["rsim.train=[planner]", "actor_rollout_ref.model.lora_adapter_path=HOME/adapter"],
        "actor_rollout_ref.model.lora_adapter_path",
        "serves its model alone",
    ),
    "mini-batch": (
        ["planner.actor.ppo_mini_batch_size=64"],
        "planner.actor.ppo_mini_batch_size",
        "must not be larger than data.train_batch_size=4",
    ),
}


@pytest.fixture(scope="module")
def results(home: Path) -> dict[str, list | None]:
    """All cases in one fresh process: importing verl takes longer than checking them."""
    good = pq.read_table(home / "data/arithmetic/train.parquet")
    pq.write_table(good.slice(0, 0), home / "empty.parquet")
    rows = good.slice(0, 4).to_pylist()
    for row in rows[:2]:
        row["reward_model"]["ground_truth"] = ""
    pq.write_table(pa.Table.from_pylist(rows), home / "no-truth.parquet")
    shutil.copytree(home / "models/tiny-llama", home / "models/no-labels", dirs_exist_ok=True)
    tokenizer = json.loads((home / "models/no-labels/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["one"] = vocabulary.pop("1")
    (home / "models/no-labels/tokenizer.json").write_text(json.dumps(tokenizer))
    saved = home / "saved-by-two/global_step_2"
    for role, gpus in (("planner", 2), ("actor", 1)):
        (saved / role).mkdir(parents=True)
        for rank in range(gpus):
            (saved / role / f"model_world_size_{gpus}_rank_{rank}.pt").touch()
    (saved / "rsim.json").write_text('{"step": 2, "stage": 0, "trained": ["planner", "reasoner"], "format": 1}')
    (home / "adapter").mkdir()
    (home / "adapter/adapter_config.json").write_text(json.dumps({"r": 4, "use_rslora": True}))
    cases = [[o.replace("HOME", str(home)) for o in overrides] for overrides, *_ in CASES.values()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VERL_PLATFORM": "cpu", "RSIM_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.split("RESULTS")[1])
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_refusals(results, case):
    _, key, message = CASES[case]
    if key is None:
        assert results[case] is None, results[case]
        return
    assert results[case] is not None, "was accepted"
    assert results[case][0] == key
    assert message in results[case][1]


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        ({}, False),
        ({"override_config": {}}, False),
        ({"override_config": {"attn_implementation": "flash_attention_2"}}, False),
        ({"override_config": {"attn_implementation": "sdpa"}}, True),
    ],
)
def test_training_with_flash_attention_needs_it(monkeypatch, model, fits):
    from omegaconf import OmegaConf

    from verl_rsim import machine, model_checks
    from verl_rsim.errors import ConfigError

    for installed in ({"flash-attn": "2.8.3"}, {"kernels": "0.11"}, {}, {"flash-attn": "2.1"}):
        monkeypatch.setattr(machine, "version", lambda name, having=installed: having.get(name, "0"))
        if fits or "0.11" in installed.values() or "2.8.3" in installed.values():
            model_checks.check_attention(OmegaConf.create(model), "planner")
            continue
        with pytest.raises(
            ConfigError, match=r"pip install --no-build-isolation flash-attn==2.8.3; or, slower, \+pl"
        ) as e:
            model_checks.check_attention(OmegaConf.create(model), "planner")
        assert e.value.key == "planner.model.override_config.attn_implementation"


def test_servers_of_both_roles_must_fit_on_the_same_gpus():
    from omegaconf import OmegaConf

    from verl_rsim import validation
    from verl_rsim.errors import ConfigError

    def shares(planner: float, reasoner: float):
        blocks = {"planner": planner, "actor_rollout_ref": reasoner}
        return OmegaConf.create({key: {"rollout": {"gpu_memory_utilization": share}} for key, share in blocks.items()})

    validation._check_memory_shares(shares(0.2, 0.7))
    with pytest.raises(
        ConfigError, match=r"both servers would hold 1\.05 of the same GPUs, and 0\.95 is the most"
    ) as e:
        validation._check_memory_shares(shares(0.2, 0.85))
    assert e.value.key == "planner.rollout.gpu_memory_utilization"


def test_models_with_positions_of_two_kinds_are_refused(monkeypatch):
    from types import SimpleNamespace

    from omegaconf import OmegaConf

    from verl_rsim import model_checks
    from verl_rsim.errors import ConfigError

    class Processor:
        get_rope_index = None

    class Another(Processor): ...

    seeing = SimpleNamespace(
        from_pretrained=lambda path, **_: SimpleNamespace(vision_config={} if "vl" in path else None)
    )
    monkeypatch.setattr(model_checks, "AutoConfig", seeing)
    monkeypatch.setattr(
        model_checks,
        "hf_processor",
        lambda path, **_: (Another if "newer" in path else Processor)() if "mrope" in path else None,
    )

    def check(*paths: str):
        settings = {"tokenizer_path": None, "trust_remote_code": False}
        model_checks.check_positions(*(OmegaConf.create({"path": path, **settings}) for path in paths))

    for pair in (("text", "other-text"), ("text", "vl-plain"), ("vl-mrope", "vl-mrope-newer")):
        check(*pair)
    for pair in (("text", "vl-mrope"), ("vl-mrope", "text")):
        with pytest.raises(ConfigError, match="name two models of one kind") as e:
            check(*pair)
        assert e.value.key == "planner.model.path"


def test_jobs_on_gpus_are_checked_for_their_shares(home, monkeypatch):
    from hydra import compose, initialize_config_module

    from verl_rsim import machine, validation
    from verl_rsim.errors import ConfigError

    monkeypatch.setenv("RSIM_HOME", str(home))
    monkeypatch.setattr(validation.cpu, "is_chosen", lambda: False)
    monkeypatch.setattr(machine, "has_flash_attention", lambda: True)
    cache = "rollout.engine_kwargs.vllm.kv_cache_memory_bytes=null"
    shares = ["actor_rollout_ref.rollout.gpu_memory_utilization=0.8", "planner.rollout.gpu_memory_utilization=0.2",
              "trainer.device=cuda", f"planner.{cache}", f"actor_rollout_ref.{cache}"]  # fmt: skip

    def check(*more: str):
        with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
            validation.validate_job(compose("tiny", overrides=[*shares, *more]))

    with pytest.raises(ConfigError, match=r"both servers would hold 1\.00"):
        check()
    for fits in (
        "rsim.planner_pool.enable=true",
        "planner.rollout.gpu_memory_utilization=0.15",
        "planner.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=100000000",
    ):
        check(fits)
    positions = []
    monkeypatch.setattr(validation, "check_positions", lambda *models: positions.append(1))
    for trained, asked in (("planner,reasoner", 1), ("reasoner", 1), ("planner", 2)):
        check("rsim.planner_pool.enable=true", f"rsim.train=[{trained}]", "rsim.schedule=joint")
        assert len(positions) == asked


@pytest.mark.parametrize("changed", [{"logits_scaling": 8.0}, {"final_logit_softcapping": 30.0}, {"logit_scale": 0.06}])
def test_shared_weights_need_logits_as_the_head_makes_them(home, tmp_path, changed):
    from hydra import compose, initialize_config_module

    from verl_rsim import validation
    from verl_rsim.errors import ConfigError

    shutil.copytree(home / "models/tiny-llama", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | changed))
    with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
        job = compose("tiny", overrides=[*SHARED, f"actor_rollout_ref.model.path={tmp_path / 'model'}"])
    with pytest.raises(ConfigError, match=f"its {next(iter(changed))} of .* changes logits after the head") as e:
        validation._check_shared_weights(job)
    job.rsim.planner_decoding = "free"
    validation._check_shared_weights(job)
    assert e.value.key == "actor_rollout_ref.model.path"
