"""Every yaml composes, and the planner's block depends on nothing of the reasoner's by accident."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf
from support.compose import composed
from support.paths import ROOT

from verl_rsim.config.schema import RsimConfig, parse_config
from verl_rsim.core.schedule import build_schedule


@pytest.fixture(scope="module")
def base():
    return composed(
        "verl_rsim.config", "rsim_trainer", "planner.model.path=planner", "actor_rollout_ref.model.path=reasoner"
    )


def interpolations(node: dict, path: str = ""):
    for key, value in node.items():
        where = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from interpolations(value, where)
        elif isinstance(value, str) and "${" in value:
            yield where, value


def test_stock_settings_are_untouched(base):
    stock = OmegaConf.to_container(composed("verl.trainer.config", "ppo_trainer"))
    mine = OmegaConf.to_container(base)
    changed = {
        "actor_rollout_ref.model.path",
        "actor_rollout_ref.rollout.name",
        "actor_rollout_ref.rollout.calculate_log_probs",
        "actor_rollout_ref.rollout.agent.default_agent_loop",
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
        "algorithm.adv_estimator",
        "reward.reward_manager.name",
        "trainer.v1.trainer_mode",
    }

    def differences(a, b, path=""):
        for key in a:
            where = f"{path}.{key}".lstrip(".")
            if isinstance(a[key], dict) and where not in changed:
                yield from differences(a[key], b[key], where)
            elif a[key] != b[key]:
                yield where

    assert set(differences(stock, mine)) <= changed


def test_the_planner_follows_the_reasoner_only_where_the_file_says_so(base):
    shared = re.findall(r"\$\{actor_rollout_ref\.[\w.]+\}", (ROOT / "verl_rsim/config/rsim_base.yaml").read_text())
    planner = OmegaConf.to_container(base.planner, resolve=False)
    for where, value in interpolations(planner):
        assert "actor_rollout_ref" not in value or value in shared, f"planner.{where} = {value}"


def test_the_planners_links_work(base):
    config = base.copy()
    config.planner.actor.use_dynamic_bsz = True
    assert config.planner.rollout.log_prob_use_dynamic_bsz
    assert not config.actor_rollout_ref.rollout.log_prob_use_dynamic_bsz
    config.actor_rollout_ref.rollout.n = 7
    assert config.planner.rollout.n == 7


def test_on_a_cpu_trainers_references_and_servers_compute_in_float32():
    from verl.utils.config import omega_conf_to_dataclass

    config = composed("verl_rsim.recipes.tiny", "tiny")
    for block in (config.planner, config.actor_rollout_ref):
        assert block.rollout.dtype == "float32"
        for part in (block.actor, block.ref):
            engine = omega_conf_to_dataclass(part.fsdp_config)
            assert engine.model_dtype == "fp32"
            assert set(engine.mixed_precision.values()) == {"fp32"}


def test_continual_code_freezes_the_reasoner_and_trains_the_planner_at_its_whole_weight():
    config = composed("verl_rsim.recipes.continual_code", "continual_code")
    rsim = parse_config(OmegaConf.to_container(config.rsim, resolve=True))
    assert rsim.frozen == {"reasoner"}
    schedule = build_schedule(rsim.schedule, rsim.weight, config.trainer.total_training_steps)
    assert [(stage.planner_weight, stage.reasoner_weight) for stage in schedule.stages] == [(1.0, 0.0)]


def test_servers_take_the_longest_row_and_no_more(monkeypatch, home):
    from verl_rsim.config.recipes import compose_recipe
    from verl_rsim.training.job_config import longest_row

    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("RSIM_HOME", str(home))
    config = compose_recipe("tiny", [])
    lengths = {role: longest_row(config, role, shared=False) for role in ("planner", "reasoner")}
    assert lengths == {"planner": 1200 + 256, "reasoner": 256 + 256}
    assert longest_row(config, "reasoner", shared=True) == 1200 + 256


def test_the_planners_policy_counts_the_gpus_of_its_own_pool(monkeypatch, home):
    """Its servers, too: verl spreads one over several nodes by the reasoner's count."""
    from verl_rsim.config.recipes import compose_recipe
    from verl_rsim.training.job_config import prepare_configs

    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("RSIM_HOME", str(home))
    config = compose_recipe("tiny", ["rsim.planner_pool={enable:true,n_gpus_per_node:2}", "trainer.n_gpus_per_node=8"])
    planner = prepare_configs(config, RsimConfig()).planner
    assert (planner.trainer.n_gpus_per_node, planner.actor_rollout_ref.rollout.n_gpus_per_node) == (2, 2)
    assert planner.actor_rollout_ref.model.path == config.planner.model.path
    assert config.actor_rollout_ref.rollout.n_gpus_per_node == 8
