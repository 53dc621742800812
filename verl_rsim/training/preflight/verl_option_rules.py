"""What verl's own options may be in a job of two policies, and why; docs/verl_options.md goes through all of them.

Nothing is loaded or started here: this is what can be said of the keys and values alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_rsim.config.schema import WRONG_TRAINER_FIX
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
    Kind,
)

POLICIES = ("actor_rollout_ref", "planner")
"""The reasoner's block first: the planner's follows it in places, and the user is told what he wrote."""
SECTIONS = ("model", "actor", "ref", "rollout")
TYPED = ("model", "actor", "rollout")
"""Those whose types are checked, the one first that the others refer to; verl's own ref block has keys that its
dataclass has not."""
ABSENT = object()

JOB_VALUES: dict[str, Kind] = {
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

"""Values of the job, beyond their types in verl's dataclasses."""

POLICY_VALUES: dict[str, Kind] = {
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

"""Values of either policy, likewise."""

_NOT_READ = "verl's v1 trainers do not read it, so it would change nothing"
_NO_TOOLS = "an episode has no tools and its own turns (rsim.max_turns)"
_ONE_SAVE = "both policies are saved as one, by this process"
_NO_ROUTES = "episodes do not carry the experts that the servers chose"

JOB_ONLY: dict[str, tuple[Any, str]] = {
    "trainer.critic_warmup": (0, "rSIM has no critic to warm up"),
    "trainer.default_hdfs_dir": (None, f"{_ONE_SAVE}; copy them with trainer.checkpoint_callback_class"),
    "trainer.remove_previous_ckpt_in_save": (False, f"{_ONE_SAVE}; set trainer.max_actor_ckpt_to_keep=1 instead"),
    "trainer.esi_redundant_time": (0, f"{_NOT_READ}; save often with trainer.save_freq"),
    "algorithm.use_pf_ppo": (False, _NOT_READ),
    "custom_reward_function.path": (None, f"{_NOT_READ}; use reward.custom_reward_function.path"),
    "reward_model.enable": (None, f"{_NOT_READ}; use reward.reward_model.enable"),
    "reward_model.reward_manager": (None, f"{_NOT_READ}; use reward.reward_manager.name"),
    "sandbox_fusion.url": (None, f"{_NOT_READ}; use reward.sandbox_fusion.url"),
    "skip.rollout.enable": (False, "episodes of two policies cannot be replayed from a dump of rollouts"),
    "skip.rollout_tq.enable": (False, "episodes of two policies cannot be replayed from a dump of rollouts"),
    "skip.async_rollout.enable": (False, "it belongs to verl's asynchronous trainers"),
}
"""The only value an option of the job may have, and why."""

POLICY_ONLY: dict[str, tuple[Any, str]] = {
    "hybrid_engine": (True, "each policy is trained and served on the same GPUs; False is for separate_async"),
    "actor.use_prefix_grouper": (False, _NOT_READ),
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
"""The only value an option of either policy may have, and why."""

ROLLOUT_ENGINES = {
    "sglang": "SGLang 0.5 has no allowed_token_ids and no seed of a request by those names, and verl starts it without "
    "the tokenizer that stop strings need; nothing of it could be tested here (docs/adr/0002)",
    "trtllm": "verl's TensorRT-LLM server overrides max_tokens of a request, so a label or a step would not end where "
    "it must (docs/adr/0002)",
    "hf": "verl has no server for it",
}

ASYNC_MODES = ("colocate_async", "separate_async")
_STALE = (
    "in verl's asynchronous modes a policy learns from episodes whose other half was played by older weights, "
    "which its importance weights do not correct (docs/adr/0003)"
)


def check_mode(config: DictConfig) -> None:
    """Refuse a job of two policies that another trainer than ``rsim`` would run; jobs of one policy pass.

    Raises:
        ConfigError: a planner, or rSIM's rollout, with a trainer of verl's own.
    """
    if "planner" not in config and _select(config, "actor_rollout_ref.rollout.agent.default_agent_loop") != "rsim":
        return
    if "async_training" in config:
        block = OmegaConf.to_container(config.async_training)
        raise ConfigError("async_training", block, f"{_STALE}; remove the block and run verl.trainer.main_ppo")
    if _select(config, "trainer.use_v1") is not True:
        fix = "rSIM's trainer is one of verl's v1 trainers; set it to True"
        raise ConfigError("trainer.use_v1", _select(config, "trainer.use_v1"), fix)
    mode = _select(config, "trainer.v1.trainer_mode")
    if mode in ASYNC_MODES:
        raise ConfigError("trainer.v1.trainer_mode", mode, f"{_STALE}; set it to rsim")
    if mode != "rsim":
        raise ConfigError("trainer.v1.trainer_mode", mode, WRONG_TRAINER_FIX)


def check_early(config: DictConfig) -> bool:
    """Check a job before anything of it is started, as far as that takes no time; jobs of one policy pass.

    Returns:
        Whether it is one of two policies.

    Raises:
        ConfigError: a setting that cannot work.
    """
    check_mode(config)
    if _select(config, "trainer.v1.trainer_mode") != "rsim":
        return False
    check_options(config)
    return True


def check_options(config: DictConfig) -> None:
    """Check verl's options by themselves: types, ranges, and those that two policies cannot have.

    Raises:
        ConfigError: the first that cannot work.
    """
    _check_blocks(config)
    for key, kind in _every(JOB_VALUES, POLICY_VALUES):
        value = _select(config, key)
        if value is not ABSENT:
            kind.check(key, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    for key in ("algorithm", *(f"{policy}.{section}" for policy in POLICIES for section in TYPED)):
        check_types(key, OmegaConf.to_container(_select(config, key), resolve=True))
    for policy in POLICIES:
        _check_engine(config, policy)
    for key, (only, why) in _every(JOB_ONLY, POLICY_ONLY):
        value = _select(config, key)
        if value is not ABSENT and (value != only or isinstance(value, bool) != isinstance(only, bool)):
            raise ConfigError(key, value, f"must be {only!r}: {why}")


def _check_blocks(config: DictConfig) -> None:
    for key in ("planner", "rsim"):
        if key not in config:
            fix = "add --config-path pkg://verl_rsim.config --config-name rsim_trainer to the command"
            raise ConfigError(key, None, f"the configuration has no such block; {fix}")
    blocks = ["data", "trainer", "trainer.v1", "algorithm", "reward", "rsim", *POLICIES]
    blocks += [f"{policy}.{section}" for policy in POLICIES for section in SECTIONS]
    for key in blocks:
        value = _select(config, key)
        if not isinstance(value, DictConfig):
            raise ConfigError(key, None if value is ABSENT else value, "must be a block of settings; override its keys")


def _check_engine(config: DictConfig, policy: str) -> None:
    key = f"{policy}.rollout.name"
    name = _select(config, key)
    if name != "vllm":
        why = ROLLOUT_ENGINES.get(str(name), "verl-rsim knows no such engine")
        raise ConfigError(key, name, f"must be vllm: {why}")


def _every(job: dict[str, Any], policy: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from job.items()
    for block in POLICIES:
        yield from ((f"{block}.{key}", rule) for key, rule in policy.items())


def _select(config: DictConfig, key: str) -> Any:
    """The value of a key, None for ``???``, ``ABSENT`` where there is none.

    Raises:
        ConfigError: it refers to a value that does not exist.
    """
    try:
        return OmegaConf.select(config, key, default=ABSENT)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise ConfigError(key, "${...}", f"what it refers to cannot be read ({said}); give a value") from error
