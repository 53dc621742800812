"""Every recipe composes, passes all checks, and fits the hardware of its README by the preflight's estimate.

That each also runs is shown by `make recipes`, which takes too long for here.
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from support.recipe_hardware import RECIPES, declared, on, peak
from support.recipe_models import QWEN, architectures, small, stock_home, use_architectures

from verl_rsim.config.recipes import compose_recipe, locate, recipes
from verl_rsim.core.rules import Rules
from verl_rsim.data.published import PUBLISHED
from verl_rsim.evaluation.matrix import cells, read_matrix
from verl_rsim.training.preflight.doctor_job import model_size
from verl_rsim.training.preflight.memory_estimate import GIB
from verl_rsim.training.preflight.validate_job import validate_job
from verl_rsim.utils.errors import ConfigError

pytestmark = pytest.mark.slow

HARDWARE = declared()
ON_GPUS = [name for name in recipes() if name in HARDWARE and HARDWARE[name].gpus]


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with stand-ins for all models and data."""
    folder = tmp_path_factory.mktemp("stocked")
    stock_home(folder)
    architectures(folder, folder / "architectures")
    return folder


@cache
def _composed(name: str) -> DictConfig:
    return compose_recipe(name, [])


def composed(name: str) -> DictConfig:
    """Returns a copy of a recipe's configuration."""
    return deepcopy(_composed(name))


def test_every_recipe_declares_its_hardware():
    assert sorted(HARDWARE) == recipes()


@pytest.mark.parametrize("name", recipes())
def test_recipes_compose(name):
    config = composed(name)
    OmegaConf.resolve(config)
    assert config.trainer.experiment_name == name.replace("/qwen2.5", "").replace("ablations/", "ablation_").replace(
        "/", "_"
    )
    if "grpo" in name:  # stock verl
        assert "planner" not in config
    else:
        assert config.trainer.v1.trainer_mode == "rsim"
        assert config.rsim.shared_weights == (config.planner.model.path is None)


@pytest.mark.parametrize("name", recipes())
def test_recipes_pass_all_checks_and_fit_as_their_readmes_say(name, stocked, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(stocked))
    hardware, config = HARDWARE[name], composed(name)
    use_architectures(config, stocked / "architectures")
    with on(hardware):
        if (
            hardware.gpus and "planner" in config
        ):  # stock verl jobs are checked by verl; SmolLM2 needs its own tokenizer
            validate_job(config)
        needed = peak(config, hardware)
    assert needed < 0.9 * hardware.size
    page = (RECIPES / name.split("/")[0] / "README.md").read_text()
    assert re.search(rf"^\| `{re.escape(name)}` \| [^|]* \| {round(needed / GIB)} GiB \|", page, re.MULTILINE), needed


@pytest.mark.parametrize("name", ON_GPUS)
def test_recipes_take_the_gpus_they_declare(name):
    config = composed(name)
    pools = [config.trainer]
    if OmegaConf.select(config, "rsim.planner_pool.enable"):
        pools.append(config.rsim.planner_pool)
    assert sum(pool.nnodes * pool.n_gpus_per_node for pool in pools) == HARDWARE[name].nodes * HARDWARE[name].gpus


@pytest.mark.parametrize(
    "name",
    ["math_grpo/qwen2.5_7b", "ablations/alternating", "small/planner_0.5b_reasoner_0.5b", "multi_node/two_nodes"],
)
def test_a_small_run_differs_from_its_recipe_in_models_and_sizes_alone(name, stocked, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(stocked))
    recipe, changed = composed(name), compose_recipe(name, small(composed(name), stocked))
    decisions = ("rsim.schedule", "rsim.reward", "rsim.train", "rsim.injection", "rsim.planner_decoding",
                 "rsim.planner_adv_estimator", "rsim.planner_pool.enable", "algorithm", "reward.reward_manager",
                 "actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.actor.fsdp_config.param_offload",
                 "actor_rollout_ref.model.lora_rank", "data.train_files", "trainer.v1.trainer_mode")  # fmt: skip
    for key in decisions:
        assert OmegaConf.select(changed, key) == OmegaConf.select(recipe, key), key
    assert changed.trainer.device == "cpu"
    assert changed.trainer.total_training_steps == 2


def test_models_have_the_sizes_their_names_say(stocked):
    published = {"0.5B": 0.494, "1.5B": 1.544, "3B": 3.086, "7B": 7.616}
    assert published.keys() == QWEN.keys()
    for size, billions in published.items():
        path = stocked / f"architectures/Qwen2.5-{size}-Instruct"
        block = OmegaConf.create({"path": str(path), "trust_remote_code": False})
        assert model_size(block).parameters / 1e9 == pytest.approx(billions, abs=1e-3), "as published"


def test_the_tiny_qwens_chat_is_that_of_qwen2_5(stocked):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stocked / "models/tiny-qwen2.5")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_plug_in_matrix_is_understood():
    matrix = read_matrix(RECIPES / "plug_in/matrix.yaml")
    training = composed("math_rsim/planner_0.5b_reasoner_0.5b").rsim
    assert matrix.settings.rules == Rules(training.max_turns, training.max_step_tokens, training.max_answer_tokens)
    assert len(cells(matrix)) == 4 * 8 * 3
    assert PUBLISHED.keys() >= set(matrix.datasets.values())
    page = (RECIPES / "plug_in/README.md").read_text()
    assert re.search(r"for name in ([^;]*);", page)[1].split() == list(matrix.datasets.values())
    assert re.findall(r"--port (\d+)", page) == [model.path[-4:] for model in matrix.reasoners.values()]


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    assert locate("tiny") == ("pkg://verl_rsim.recipes.tiny", "tiny")
    assert locate("ablations/joint") == ("pkg://verl_rsim.recipes.ablations", "joint")
    with pytest.raises(ConfigError, match=r"recipe='tinny'.*quickstart.*tiny"):
        locate("tinny")
    with pytest.raises(ConfigError, match="choose one of"):
        locate("../tiny")
