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
from support.chat_templates import GEMMA_2, QWEN_3
from support.refused_jobs import CASES, SHARED
from support.unusual_rows import CONVERTED, write_unusual_rows

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from hydra import compose, initialize_config_module
from verl_rsim.training.preflight.validate_job import validate_job
from verl_rsim.utils.errors import ConfigError, DataError
results = []
with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
    for overrides in json.load(sys.stdin):
        try:
            validate_job(compose("tiny", overrides=overrides))
            results.append(None)
        except ConfigError as error:
            results.append([error.key, str(error)])
        except DataError as error:
            results.append(["data", str(error)])
print("RESULTS" + json.dumps(results))
"""


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
    for name, template in (("no-template", None), ("thinks", QWEN_3), ("no-system", GEMMA_2)):
        _with_template(home, name, template)
    texts = [{**row, "prompt": "What is 2 + 3?"} for row in good.to_pylist()]
    pq.write_table(pa.Table.from_pylist(texts), home / "text-prompt.parquet")
    write_unusual_rows(home, good.to_pylist())
    (home / "rows.csv").write_text("prompt,answer\n")
    (home / "damaged.parquet").write_text("PAR1")
    system = {"role": "system", "content": "Be brief."}
    chats = [{**row, "prompt": [system, *row["prompt"]]} for row in good.slice(0, 4).to_pylist()]
    pq.write_table(pa.Table.from_pylist(chats), home / "system-prompt.parquet")
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


def _with_template(home: Path, name: str, template: str | None) -> None:
    """Writes the model tiny-llama with another chat template, or without one."""
    from transformers import AutoTokenizer

    shutil.copytree(home / "models/tiny-llama", home / "models" / name, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(home / "models/tiny-llama")
    tokenizer.chat_template = template
    (home / "models" / name / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(home / "models" / name)


@pytest.mark.parametrize("case", CASES)
def test_refusals(results, case, home):
    _, key, message = CASES[case]
    message = message.replace("HOME", str(home))
    if key is None:
        assert results[case] is None, results[case]
        return
    assert results[case] is not None, "was accepted"
    assert results[case][0] == key
    assert message in results[case][1]


@pytest.mark.parametrize("name", [*CONVERTED, "nan"])
def test_verls_dataset_plays_rows_in_unusual_forms(home, results, tmp_path, monkeypatch, name):
    from hydra import compose, initialize_config_module
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from verl_rsim.config.schema import RsimConfig
    from verl_rsim.data.row_reader import BAD_ROWS
    from verl_rsim.reward.manager import ground_truth_of
    from verl_rsim.training.job_config import with_usable_rows
    from verl_rsim.training.preflight.dataset_checks import read_datasets

    monkeypatch.setenv("RSIM_HOME", str(home))
    with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
        config = compose("tiny", overrides=[f"data.train_files={home}/rows/{name}.jsonl"])
    data = read_datasets(config, RsimConfig(max_bad_rows=1))
    changed = with_usable_rows(config, data, tmp_path)
    assert changed.data.train_files == [str(tmp_path / "data/train_0.parquet")]
    assert changed.data.val_files == config.data.val_files, "needs no copy"
    tokenizer = AutoTokenizer.from_pretrained(home / "models/tiny-llama")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    dataset = RLHFDataset(changed.data.train_files, tokenizer, changed.data)
    usual = pq.read_table(home / "data/arithmetic/train.parquet").to_pylist()[:8]
    if name == "nan":
        listed = json.loads((tmp_path / BAD_ROWS).read_text())
        assert (listed["number"], listed["column"], listed["value"]) == (3, "reward_model.ground_truth", "nan")
        del usual[3]
    assert [dataset[number]["raw_prompt"] for number in range(len(dataset))] == [row["prompt"] for row in usual]
    truth = ground_truth_of(dataset[0]["reward_model"])
    known = {"target": "7", "list": "1", "spellings": "1", "value": "11"}
    assert truth == known.get(name, usual[0]["reward_model"]["ground_truth"])


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

    from verl_rsim.training.preflight import hardware, model_checks
    from verl_rsim.utils.errors import ConfigError

    for installed in ({"flash-attn": "2.8.3"}, {"kernels": "0.11"}, {}, {"flash-attn": "2.1"}):
        monkeypatch.setattr(hardware, "version", lambda name, having=installed: having.get(name, "0"))
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

    from verl_rsim.training.preflight import validate_job
    from verl_rsim.utils.errors import ConfigError

    def shares(planner: float, reasoner: float):
        blocks = {"planner": planner, "actor_rollout_ref": reasoner}
        return OmegaConf.create({key: {"rollout": {"gpu_memory_utilization": share}} for key, share in blocks.items()})

    validate_job._check_memory_shares(shares(0.2, 0.7))
    with pytest.raises(
        ConfigError, match=r"both servers would hold 1\.05 of the same GPUs, and 0\.95 is the most"
    ) as e:
        validate_job._check_memory_shares(shares(0.2, 0.85))
    assert e.value.key == "planner.rollout.gpu_memory_utilization"


def test_models_with_positions_of_two_kinds_are_refused(monkeypatch):
    from types import SimpleNamespace

    from omegaconf import OmegaConf

    from verl_rsim.training.preflight import model_checks
    from verl_rsim.utils.errors import ConfigError

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

    from verl_rsim.training.preflight import hardware, validate_job
    from verl_rsim.utils.errors import ConfigError

    monkeypatch.setenv("RSIM_HOME", str(home))
    monkeypatch.setattr(validate_job.cpu, "is_chosen", lambda: False)
    monkeypatch.setattr(hardware, "has_flash_attention", lambda: True)
    cache = "rollout.engine_kwargs.vllm.kv_cache_memory_bytes=null"
    shares = ["actor_rollout_ref.rollout.gpu_memory_utilization=0.8", "planner.rollout.gpu_memory_utilization=0.2",
              "trainer.device=cuda", f"planner.{cache}", f"actor_rollout_ref.{cache}"]  # fmt: skip

    def check(*more: str):
        with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
            validate_job.validate_job(compose("tiny", overrides=[*shares, *more]))

    with pytest.raises(ConfigError, match=r"both servers would hold 1\.00"):
        check()
    for fits in (
        "rsim.planner_pool.enable=true",
        "planner.rollout.gpu_memory_utilization=0.15",
        "planner.rollout.engine_kwargs.vllm.kv_cache_memory_bytes=100000000",
    ):
        check(fits)
    positions = []
    monkeypatch.setattr(validate_job, "check_positions", lambda *models: positions.append(1))
    for trained, asked in (("planner,reasoner", 1), ("reasoner", 1), ("planner", 2)):
        check("rsim.planner_pool.enable=true", f"rsim.train=[{trained}]", "rsim.schedule=joint")
        assert len(positions) == asked


@pytest.mark.parametrize("changed", [{"logits_scaling": 8.0}, {"final_logit_softcapping": 30.0}, {"logit_scale": 0.06}])
def test_shared_weights_need_logits_as_the_head_makes_them(home, tmp_path, changed):
    from hydra import compose, initialize_config_module

    from verl_rsim.training.preflight import validate_job
    from verl_rsim.utils.errors import ConfigError

    shutil.copytree(home / "models/tiny-llama", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | changed))
    with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
        job = compose("tiny", overrides=[*SHARED, f"actor_rollout_ref.model.path={tmp_path / 'model'}"])
    with pytest.raises(ConfigError, match=f"its {next(iter(changed))} of .* changes logits after the head") as e:
        validate_job._check_shared_weights(job)
    job.rsim.planner_decoding = "free"
    validate_job._check_shared_weights(job)
    assert e.value.key == "actor_rollout_ref.model.path"
