"""Every text among verl's options is looked up at the start, or docs/verl_options.md says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from support.paths import ROOT

from verl_rsim.training.preflight import late_lookups
from verl_rsim.training.preflight.late_lookups import (
    JOB_CHOICES,
    JOB_CLASSES,
    JOB_OBJECTS,
    POLICY_CHOICES,
    POLICY_FILES,
    check_lookups,
)
from verl_rsim.training.preflight.verl_option_rules import (
    FIXED_JOB_OPTIONS,
    FIXED_POLICY_OPTIONS,
    JOB_VALUES,
    POLICY_VALUES,
    check_options,
)
from verl_rsim.utils.errors import ConfigError

pytestmark = pytest.mark.slow

NAMES = (ROOT / "docs/verl_options.md").read_text().partition("## Names and paths")[2]
LOOKED_UP, OTHERS = (re.findall(r"^\| (`.*?`) \|", part, re.MULTILINE) for part in NAMES.split("Other texts"))
EXPLAINED = re.findall(r"`([\w.*]+)`", " ".join(OTHERS))
REASONER = "actor_rollout_ref."
PREPARED = {
    *("trainer.default_local_dir", "trainer.resume_mode", "trainer.v1.trainer_mode", "algorithm.adv_estimator"),
    *("data.prompt_key", "reward.reward_manager.name", "data.gen_batch_size", "data.val_batch_size"),
    "reward.reward_manager.module.path",
    *(f"{REASONER}rollout.agent.{name}" for name in ("default_agent_loop", "agent_loop_manager_class")),
    *(f"{REASONER}{name}" for name in ("model.path", "rollout.name", "actor.loss_agg_mode")),
    *(f"{REASONER}actor.optim.{name}" for name in ("lr_scheduler_type", "warmup_style")),
}
"""Options that other checks of the start read; tests/support/refused_jobs.py and config_samples.py have bad values."""


@pytest.fixture(scope="module")
def tiny() -> DictConfig:
    with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
        return compose("tiny")


@contextmanager
def changed(config: DictConfig, values: dict[str, Any]) -> Iterator[DictConfig]:
    before = {key: OmegaConf.select(config, key) for key in values}
    for key, value in values.items():
        OmegaConf.update(config, key, value, force_add=True)
    try:
        yield config
    finally:
        for key, value in before.items():
            OmegaConf.update(config, key, value, force_add=True)


def refusal(config: DictConfig, values: dict[str, Any]) -> ConfigError:
    with changed(config, values), pytest.raises(ConfigError) as refused:
        check_lookups(config)
    return refused.value


def test_the_recipe_passes(tiny):
    check_lookups(tiny)


LOOKED_UP_KEYS = [
    *JOB_CHOICES,
    *JOB_CLASSES,
    *(f"{key}.path" for key in JOB_OBJECTS),
    *(f"{policy}.{key}" for policy in ("planner", "actor_rollout_ref") for key in (*POLICY_CHOICES, *POLICY_FILES)),
    "trainer.logger",
    "planner.actor.policy_loss.loss_mode",
    "actor_rollout_ref.actor.policy_loss.loss_mode",
    "planner.actor.optim.optimizer",
    "planner.actor.optim.optimizer_impl",
    "planner.model.external_lib",
]


@pytest.mark.parametrize("key", LOOKED_UP_KEYS)
def test_nonsense_is_refused(tiny, key):
    values = {key: "nonsense"}
    if key.endswith(".path"):
        values[key.replace(".path", ".name")] = "some"
    assert refusal(tiny, values).key == key
    page_key = key.removeprefix("planner.").removeprefix(REASONER)
    assert any(f"`{page_key}`" in cell for cell in LOOKED_UP)


def texts(block: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yields the options that are texts, or that are null and may be texts."""
    for name, value in block.items():
        key = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict) and value:
            yield from texts(value, key)
            continue
        is_text = value is None or isinstance(value, str)
        refers = str(value).startswith("${") and "RSIM_HOME" not in str(value)
        if is_text and not refers and name != "_target_":
            yield key


def test_every_text_is_looked_up_or_the_page_says_why_not(tiny):
    ruled = {*JOB_VALUES, *FIXED_JOB_OPTIONS, *LOOKED_UP_KEYS, *PREPARED}
    ruled |= {f"{REASONER}{key}" for key in (*POLICY_VALUES, *FIXED_POLICY_OPTIONS, "actor.optim.optimizer",
                                             "actor.optim.optimizer_impl", "model.external_lib")}  # fmt: skip
    unexplained = []
    for key in texts(OmegaConf.to_container(tiny, resolve=False)):
        if key in ruled or key.startswith(("planner.", "rsim.", "critic.", "distillation.")):
            continue
        if any(fnmatchcase(key.removeprefix(REASONER), pattern) for pattern in EXPLAINED):
            continue
        with changed(tiny, {key: "nonsense"}):
            try:
                check_options(tiny)
                unexplained.append(key)
            except ConfigError:
                pass
    assert unexplained == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def compute_score(data_source, solution_str, ground_truth, extra_info=None): return 1.0", ""),
        ("def compute_score(**arguments): return 1.0", ""),
        ("def compute_score(text, truth): return 1.0", "verl calls it with the arguments data_source, solution_str"),
        ("def score(**arguments): return 1.0", "defines nothing of this name"),
        ("import no_such_module", "it cannot be loaded: ModuleNotFoundError"),
        ("def compute_score(:", "it cannot be loaded: SyntaxError"),
    ],
)
def test_a_reward_function_is_loaded_and_its_arguments_are_compared(tiny, tmp_path, source, message):
    (tmp_path / "rewards.py").write_text(source)
    values = {"reward.custom_reward_function.path": str(tmp_path / "rewards.py")}
    if not message:
        with changed(tiny, values):
            check_lookups(tiny)
        return
    assert message in refusal(tiny, values).fix


def test_a_reward_manager_of_the_user_is_loaded(tiny):
    values = {"reward.reward_manager.source": "importlib", "reward.reward_manager.module.path": "/nowhere.py"}
    assert refusal(tiny, values).key == "reward.reward_manager.module.path"


def test_a_dataset_class_must_be_a_dataset(tiny, tmp_path):
    (tmp_path / "data.py").write_text("class Mine: ...\n")
    values = {"data.custom_cls.path": str(tmp_path / "data.py"), "data.custom_cls.name": "Mine"}
    assert "must be a class that extends torch.utils.data.Dataset" in refusal(tiny, values).fix


def test_a_logger_must_be_installed_and_wandb_have_a_key(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(late_lookups, "_is_installed", lambda module: module != "clearml")
    assert "its package is not installed: pip install clearml" in refusal(tiny, {"trainer.logger": ["clearml"]}).fix
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "set WANDB_API_KEY, or WANDB_MODE=offline" in refusal(tiny, {"trainer.logger": ["wandb"]}).fix
    monkeypatch.setenv("WANDB_MODE", "offline")
    with changed(tiny, {"trainer.logger": ["console", "wandb"]}):
        check_lookups(tiny)
