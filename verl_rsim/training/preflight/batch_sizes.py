"""Checks that a policy's rows can be split over its GPUs and into micro-batches."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from verl_rsim.config.schema import gpus_of
from verl_rsim.utils.errors import ConfigError


def check_batch_sizes(config: DictConfig, role: str, key: str, *, frozen: bool) -> None:
    """Checks that a policy's rows divide into mini-batches, ranks and micro-batches.

    Args:
        config: the whole configuration.
        role: "planner" or "reasoner".
        key: name of the role's block in ``config``.
        frozen: True if the role is not updated.

    Raises:
        ConfigError: verl would refuse the sizes in a worker, in some cases only after a rollout.
    """
    _check_block(config, role, key)
    blocks = (key, "planner") if config.rsim.shared_weights else (key,)
    longest_row = max(config[name].rollout.prompt_length + config[name].rollout.response_length for name in blocks)
    if not frozen and config[key].actor.strategy in ("fsdp", "fsdp2"):
        _check_reference(config, role, key, longest_row)
        _check_split(config[key], key, gpus_of(config, role), longest_row)


def _check_block(config: DictConfig, role: str, key: str) -> None:
    """Runs verl's own checks of the rollout and actor blocks, which verl runs only for the reasoner's."""
    n_gpus = gpus_of(config, role)
    rollout = config[key].rollout
    per_server = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    if n_gpus % per_server:
        fix = f"a server needs {per_server} GPUs, but this policy has {n_gpus}; lower it"
        raise ConfigError(f"{key}.rollout.tensor_model_parallel_size", rollout.tensor_model_parallel_size, fix)
    mini_batch, batch = config[key].actor.ppo_mini_batch_size, config.data.train_batch_size
    if mini_batch > batch:
        fix = f"must not be larger than data.train_batch_size={batch}"
        raise ConfigError(f"{key}.actor.ppo_mini_batch_size", mini_batch, fix)
    _build(f"{key}.rollout", rollout)
    actor = _build(f"{key}.actor", config[key].actor)
    try:
        actor.validate(n_gpus, config.data.train_batch_size, config[key].model)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"{key}.actor", "{...}", f"verl refuses this block: {error}") from error


def _check_split(block: DictConfig, key: str, n_gpus: int, longest_row: int) -> None:
    """Checks that an update's rows split equally over the ranks, in whole micro-batches.

    verl asserts it too, but only after the first rollout.
    """
    actor, rollout = block.actor, block.rollout
    sequence_parallel = actor.ulysses_sequence_parallel_size or 1
    ranks = n_gpus // sequence_parallel
    rows = actor.ppo_mini_batch_size * rollout.n
    if rows % ranks:
        fix = f"times rollout.n={rollout.n} it must be a multiple of {ranks}, the data-parallel ranks of this policy"
        raise ConfigError(f"{key}.actor.ppo_mini_batch_size", actor.ppo_mini_batch_size, fix)
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        fix = f"must equal {key}.actor.use_dynamic_bsz={actor.use_dynamic_bsz}"
        raise ConfigError(f"{key}.rollout.log_prob_use_dynamic_bsz", rollout.log_prob_use_dynamic_bsz, fix)
    if actor.use_dynamic_bsz:
        for name in ("actor.ppo_max_token_len_per_gpu", "rollout.log_prob_max_token_len_per_gpu"):
            _check_token_limit(block, key, name, longest_row, sequence_parallel)
        return
    for name in ("actor.ppo_micro_batch_size_per_gpu", "rollout.log_prob_micro_batch_size_per_gpu"):
        micro_batch = OmegaConf.select(block, name)
        if not micro_batch:
            raise ConfigError(f"{key}.{name}", micro_batch, f"set it, or {key}.actor.use_dynamic_bsz=true")
        _check_divides(f"{key}.{name}", micro_batch, rows // ranks, ranks)


def _check_divides(key: str, micro_batch: int, rows_per_rank: int, ranks: int) -> None:
    # Every mini-batch is whole, even if questions fail: verl pads a batch to a multiple of the mini-batch size.
    if rows_per_rank % micro_batch:
        fix = f"must divide the {rows_per_rank} rows of a mini-batch on each of {ranks} data-parallel ranks; lower it"
        raise ConfigError(key, micro_batch, fix)


def _check_token_limit(block: DictConfig, key: str, name: str, longest_row: int, sequence_parallel: int) -> None:
    """Checks that the longest row fits into a micro-batch; sequence-parallel ranks add up their limits."""
    limit = OmegaConf.select(block, name)
    if limit * sequence_parallel < longest_row:
        needed = -(-longest_row // sequence_parallel)
        fix = f"prompt_length and response_length allow rows of {longest_row} tokens; raise it to {needed}"
        raise ConfigError(f"{key}.{name}", limit, fix)


def _check_reference(config: DictConfig, role: str, key: str, longest_row: int) -> None:
    """Checks the micro-batches of the reference policy, if there is a KL term."""
    block, name = config[key], f"{key}.ref.log_prob_micro_batch_size_per_gpu"
    if not (config.algorithm.use_kl_in_reward or block.actor.use_kl_loss):
        return
    sequence_parallel = block.ref.get("ulysses_sequence_parallel_size") or 1
    # With LoRA the reference is the policy without its adapter, and its sizes are those of the actor.
    is_separate_model = block.model.lora_rank <= 0
    if block.ref.log_prob_use_dynamic_bsz:
        if is_separate_model:
            _check_token_limit(block, key, "ref.log_prob_max_token_len_per_gpu", longest_row, sequence_parallel)
        return
    micro_batch = block.ref.log_prob_micro_batch_size_per_gpu
    if not micro_batch:
        raise ConfigError(name, micro_batch, "set it: this policy has a reference for its KL term")
    ranks = gpus_of(config, role) // sequence_parallel
    if is_separate_model:
        _check_divides(name, micro_batch, block.actor.ppo_mini_batch_size * block.rollout.n // ranks, ranks)


def _build(key: str, block: DictConfig) -> Any:
    """Returns verl's dataclass of a block; its constructor checks combinations of options."""
    try:
        return omega_conf_to_dataclass(block)
    except InstantiationException as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(key, "{...}", f"verl refuses this block: {reason}") from error
