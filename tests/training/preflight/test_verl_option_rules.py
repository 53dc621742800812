"""Options of verl that two policies cannot have are refused at verl's entry points, before anything is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from support.paths import ROOT

from verl_rsim.training.preflight.verl_option_rules import (
    FIXED_JOB_OPTIONS,
    FIXED_POLICY_OPTIONS,
    POLICIES,
    check_early,
    check_options,
)
from verl_rsim.utils.errors import ConfigError

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/verl_options.md").read_text()


def composed(*overrides: str, module: str = "verl_rsim.recipes.tiny", name: str = "tiny") -> DictConfig:
    with initialize_config_module(module, version_base=None):
        return compose(name, overrides=list(overrides))


@pytest.fixture(scope="module")
def tiny() -> DictConfig:
    return composed()


def changed(config: DictConfig, key: str, value) -> DictConfig:
    config = config.copy()
    OmegaConf.update(config, key, value, force_add=True)
    return config


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("trainer.v1.trainer_mode", "colocate_async", "older weights"),
        ("trainer.v1.trainer_mode", "separate_async", "older weights"),
        ("trainer.v1.trainer_mode", "sync", "trainer of one policy"),
        ("trainer.use_v1", False, "one of verl's v1 trainers"),
        ("async_training", {"partial_rollout": True}, "older weights"),
        ("planner.rollout.name", "sglang", "no allowed_token_ids"),
        ("actor_rollout_ref.rollout.name", "trtllm", "overrides max_tokens"),
        ("actor_rollout_ref.rollout.name", "vlm", "knows no such engine"),
        ("planner.actor", None, "must be a block"),
        ("data.train_batch_size", "many", "whole number"),
        ("planner.rollout.temperature", 0.0, "above 0"),
        ("planner.rollout.temperature", float("nan"), "above 0"),
        ("actor_rollout_ref.rollout.n", True, "whole number"),
        ("actor_rollout_ref.model.trust_remote_code", "no", "true or false"),
        ("planner.rollout.n", "${nowhere.n}", "cannot be read"),
    ],
)
def test_refused_by_key_value_and_fix(tiny, key, value, why):
    with pytest.raises(ConfigError) as refused:
        check_early(changed(tiny, key, value))
    assert refused.value.key == key
    assert why in refused.value.fix


OTHERS = [(None, "somewhere"), (False, True), (True, False), (0, 3), (1, 2), ("async", "sync")]
ONLY = dict(FIXED_JOB_OPTIONS)
for _policy in POLICIES:
    ONLY |= {f"{_policy}.{key}": rule for key, rule in FIXED_POLICY_OPTIONS.items()}


@pytest.mark.parametrize("key", ONLY)
def test_options_with_one_value(tiny, key):
    only, why = ONLY[key]
    other = next(other for value, other in OTHERS if value == only and type(value) is type(only))
    with pytest.raises(ConfigError) as refused:
        check_options(changed(tiny, key, other))
    assert (refused.value.key, refused.value.value) == (key, other)
    assert why in str(refused.value)


def test_jobs_of_one_policy_pass_whatever_their_trainer():
    stock = composed("trainer.v1.trainer_mode=colocate_async", module="verl.trainer.config", name="ppo_trainer")
    assert check_early(stock) is False
    assert check_early(composed()) is True


def test_a_missing_block_is_named():
    stock = composed("trainer.v1.trainer_mode=rsim", module="verl.trainer.config", name="ppo_trainer")
    with pytest.raises(ConfigError, match="--config-name rsim_trainer"):
        check_early(stock)


def test_a_cpu_that_was_not_chosen_is_refused_before_a_minute_of_imports(tiny, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM")
    with pytest.raises(ConfigError, match="export VERL_PLATFORM=cpu"):
        check_early(tiny)


def test_verls_own_command_refuses_before_it_starts_ray(home):
    command = [sys.executable, "-W", "ignore", "-m", "verl.trainer.main_ppo"]
    command += ["--config-path", "pkg://verl_rsim.recipes.tiny", "--config-name", "tiny"]
    done = subprocess.run(
        [*command, "trainer.v1.trainer_mode=separate_async", "hydra.run.dir=" + str(home / "hydra")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VERL_PLATFORM": "cpu", "RSIM_HOME": str(home)},
    )
    assert done.returncode != 0
    assert "trainer.v1.trainer_mode='separate_async'" in done.stderr
    assert "ray init kwargs" not in done.stdout


def test_the_rollout_refuses_a_trainer_of_one_policy(tiny):
    from verl_rsim.training.agent_loop import RsimAgentLoopManager

    with pytest.raises(ConfigError, match="rsim"):
        RsimAgentLoopManager(changed(tiny, "trainer.v1.trainer_mode", "sync"), SimpleNamespace())


def test_the_page_names_every_option_that_is_refused():
    for key in [*FIXED_JOB_OPTIONS, *FIXED_POLICY_OPTIONS]:
        assert f"`{key}`" in PAGE, key


def test_the_page_goes_through_all_of_verls_blocks():
    stock = composed(module="verl.trainer.config", name="ppo_trainer")
    sections = [f"actor_rollout_ref.{key}" for key in stock.actor_rollout_ref]
    for block in ("trainer", "trainer.v1", "algorithm", "reward"):
        sections += [f"{block}.{key}" for key in OmegaConf.select(stock, block)]
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    named |= {f"actor_rollout_ref.{name}" for name in named}  # as the page says
    wanted = [key for key in [*stock, *sections] if not key.endswith("_target_")]
    assert [key for key in wanted if not any(name == key or name.startswith(key + ".") for name in named)] == []
