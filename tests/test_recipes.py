"""Every recipe composes; those of the paper pass all checks and fit their hardware by the preflight's estimate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_rsim import cpu, machine
from verl_rsim.doctor_job import plan_of, policies
from verl_rsim.errors import ConfigError
from verl_rsim.preflight import GIB, estimate, peaks
from verl_rsim.recipe import compose_recipe, locate, recipes
from verl_rsim.validation import validate_job

RECIPES = recipes()
ON_GPUS = [name for name in RECIPES if name.startswith(("math_", "ablations"))]
QWEN = {  # hidden size, inner size, layers, heads, key-value heads, tied embeddings, vocabulary
    "0.5B": (896, 4864, 24, 14, 2, True, 151936),
    "1.5B": (1536, 8960, 28, 12, 2, True, 151936),
    "7B": (3584, 18944, 28, 28, 4, False, 152064),
}
"""Architectures of Qwen2.5, from its config files."""


@pytest.fixture(scope="module")
def models(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5's architectures with the tiny Qwen2's tokenizer: all that the checks read, without weights."""
    folder = tmp_path_factory.mktemp("models")
    for size, (hidden, inner, layers, heads, kv_heads, tied, vocabulary) in QWEN.items():
        model = folder / f"Qwen2.5-{size}-Instruct"
        shutil.copytree(home / "models/tiny-qwen2", model, ignore=shutil.ignore_patterns("*.safetensors", ".*"))
        config = json.loads((model / "config.json").read_text())
        config |= {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
        config |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied}
        config |= {"vocab_size": vocabulary, "max_position_embeddings": 32768, "head_dim": hidden // heads}
        config["layer_types"] = ["full_attention"] * layers
        (model / "config.json").write_text(json.dumps(config))
    return folder


def with_local_models(name: str, models: Path, home: Path):
    """A recipe's configuration, with the models and data of this test in place of the hub's."""
    data = home / "data/arithmetic"
    config = compose_recipe(name, [f"data.train_files={data}/train.parquet", f"data.val_files={data}/test.parquet"])
    for block in ("planner", "actor_rollout_ref"):
        if block in config and config[block].model.path:
            config[block].model.path = str(models / Path(config[block].model.path).name)
    config.data.train_batch_size = config.actor_rollout_ref.actor.ppo_mini_batch_size = 16  # there are 32 rows
    return config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_compose(name):
    config = compose_recipe(name, [])
    OmegaConf.resolve(config)
    assert config.trainer.experiment_name == name.replace("/qwen2.5", "").replace("ablations/", "ablation_").replace(
        "/", "_"
    )
    if "grpo" in name:  # stock verl
        assert "planner" not in config
    else:
        assert config.trainer.v1.trainer_mode == "rsim"
        assert config.rsim.shared_weights == (config.planner.model.path is None)


@pytest.mark.parametrize("name", [name for name in ON_GPUS if "grpo" not in name])
def test_the_papers_recipes_pass_all_checks(name, models, home, monkeypatch):
    monkeypatch.setattr(cpu, "is_chosen", lambda: False)
    validate_job(with_local_models(name, models, home))


@pytest.mark.parametrize("name", ON_GPUS)
def test_the_papers_recipes_fit_eight_gpus_of_80_gb(name, models, home, monkeypatch):
    monkeypatch.setattr(cpu, "is_chosen", lambda: False)
    monkeypatch.setattr(machine, "gpus", lambda: [machine.Gpu("80 GB", 80 * 10**9, 0)])
    config = with_local_models(name, models, home)
    config.actor_rollout_ref.actor.ppo_mini_batch_size = 64
    assert config.trainer.n_gpus_per_node * config.trainer.nnodes == 8
    frozen = {"planner", "reasoner"} - set(OmegaConf.select(config, "rsim.train") or ("planner", "reasoner"))
    plans = [plan_of(config, role, frozen=role in frozen) for role in policies(config)]
    found = peaks(estimate(plans, cpu=False))
    assert 10 * GIB < max(found.values()) < 0.9 * 80 * 10**9, found


def test_models_have_the_sizes_their_names_say(models, monkeypatch):
    from verl_rsim.doctor_job import model_size

    for size, billions in (("0.5B", 0.494), ("1.5B", 1.544), ("7B", 7.616)):
        block = OmegaConf.create({"path": str(models / f"Qwen2.5-{size}-Instruct"), "trust_remote_code": False})
        assert model_size(block).parameters / 1e9 == pytest.approx(billions, abs=1e-3), "as published"


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    assert locate("tiny") == ("pkg://verl_rsim.recipes.tiny", "tiny")
    assert locate("ablations/joint") == ("pkg://verl_rsim.recipes.ablations", "joint")
    with pytest.raises(ConfigError, match=r"recipe='tinny'.*quickstart.*tiny"):
        locate("tinny")
    with pytest.raises(ConfigError, match="choose one of"):
        locate("../tiny")
