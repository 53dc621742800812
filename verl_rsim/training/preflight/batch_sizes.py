"""Checks that a policy's rows can be shared by its GPUs and cut into micro-batches."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from verl_rsim.config.schema import gpus_of
from verl_rsim.utils.errors import ConfigError


def check_batch_sizes(config: DictConfig, role: str, key: str, *, frozen: bool) -> None:
    """Check that a policy's rows divide into mini-batches, ranks and micro-batches.

    Args:
        config: of the job.
        role: "planner" or "reasoner".
        key: of the role's block in ``config``.
        frozen: the role is not updated.

    Raises:
        ConfigError: what verl would refuse in a worker, some of it after a rollout.
    """
    _check_block(config, role, key)
    rows = (key, "planner") if config.rsim.shared_weights else (key,)
    longest = max(config[each].rollout.prompt_length + config[each].rollout.response_length for each in rows)
    if not frozen and config[key].actor.strategy in ("fsdp", "fsdp2"):
        _check_reference(config, role, key, longest)
        _check_shares(config[key], key, gpus_of(config, role), longest)


def _check_block(config: DictConfig, role: str, key: str) -> None:
    """verl's own checks of the actor block, for the planner too."""
    n_gpus = gpus_of(config, role)
    rollout = config[key].rollout
    size = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    if n_gpus % size:
        fix = f"a server needs {size} GPUs, but this policy has {n_gpus}; lower it"
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


def _check_shares(block: DictConfig, key: str, n_gpus: int, longest: int) -> None:
    """Check that GPUs can share an update's rows equally, in whole micro-batches; verl asserts it after a rollout."""
    actor, rollout = block.actor, block.rollout
    parts = actor.ulysses_sequence_parallel_size or 1
    ranks = n_gpus // parts
    rows = actor.ppo_mini_batch_size * rollout.n
    if rows % ranks:
        fix = f"times rollout.n={rollout.n} it must be a multiple of {ranks}, the data-parallel ranks of this policy"
        raise ConfigError(f"{key}.actor.ppo_mini_batch_size", actor.ppo_mini_batch_size, fix)
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        fix = f"must equal {key}.actor.use_dynamic_bsz={actor.use_dynamic_bsz}"
        raise ConfigError(f"{key}.rollout.log_prob_use_dynamic_bsz", rollout.log_prob_use_dynamic_bsz, fix)
    for name in ("actor.ppo_{}_per_gpu", "rollout.log_prob_{}_per_gpu"):
        if actor.use_dynamic_bsz:
            _check_room(block, key, name.format("max_token_len"), longest, parts)
            continue
        name = name.format("micro_batch_size")
        if not (held := OmegaConf.select(block, name)):
            raise ConfigError(f"{key}.{name}", held, f"set it, or {key}.actor.use_dynamic_bsz=true")
        _check_divides(f"{key}.{name}", held, rows // ranks, ranks)


def _check_divides(key: str, held: int, of_rank: int, ranks: int) -> None:
    """verl fills a batch up to whole mini-batches; where questions are lost, to fewer of them than usual."""
    if of_rank % held:
        fix = f"must divide the {of_rank} rows of a mini-batch on each of {ranks} data-parallel ranks; lower it"
        raise ConfigError(key, held, fix)


def _check_room(block: DictConfig, key: str, name: str, longest: int, parts: int) -> None:
    """The longest row must fit into the tokens of a micro-batch, which as many ranks share as a sequence has parts."""
    held = OmegaConf.select(block, name)
    if held * parts < longest:
        fix = f"prompt_length and response_length allow rows of {longest} tokens; raise it to {-(-longest // parts)}"
        raise ConfigError(f"{key}.{name}", held, fix)


def _check_reference(config: DictConfig, role: str, key: str, longest: int) -> None:
    """The micro-batches of the reference, if there is a KL term (with LoRA: the policy without its adapter)."""
    block, name = config[key], f"{key}.ref.log_prob_micro_batch_size_per_gpu"
    if not (config.algorithm.use_kl_in_reward or block.actor.use_kl_loss):
        return
    parts, of_its_own = block.ref.get("ulysses_sequence_parallel_size") or 1, block.model.lora_rank <= 0
    if block.ref.log_prob_use_dynamic_bsz:
        if of_its_own:
            _check_room(block, key, "ref.log_prob_max_token_len_per_gpu", longest, parts)
        return
    if not (held := block.ref.log_prob_micro_batch_size_per_gpu):
        raise ConfigError(name, held, "set it: this policy has a reference for its KL term")
    ranks = gpus_of(config, role) // parts
    if of_its_own:
        _check_divides(name, held, block.actor.ppo_mini_batch_size * block.rollout.n // ranks, ranks)


def _build(key: str, block: DictConfig) -> Any:
    """verl's dataclass of a block, which checks what belongs together."""
    try:
        return omega_conf_to_dataclass(block)
    except InstantiationException as error:
        said = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigError(key, "{...}", f"verl refuses this block: {said}") from error
