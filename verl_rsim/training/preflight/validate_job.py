"""Refuses a job that cannot work, before anything is started; each error names the key, the value and the fix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
from verl.trainer.distillation import is_distillation_enabled
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
from verl.trainer.ppo.utils import need_critic

from verl_rsim.config.dialogue import build_dialogue
from verl_rsim.config.schema import RsimConfig, gpus_of, parse_config, pool_of
from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.prompts import CUE, planner_messages
from verl_rsim.core.schedule import build_schedule
from verl_rsim.core.template_check import TemplateFinding, TemplateSettings, check_template
from verl_rsim.reward.planner_reward import PlannerScorer
from verl_rsim.training import cpu
from verl_rsim.training.checkpoint.store import FOLDERS, SHARED, read_state, resume_folder
from verl_rsim.training.preflight.batch_sizes import check_batch_sizes
from verl_rsim.training.preflight.dataset_checks import (
    JobData,
    check_lengths,
    questions_by_roles,
    read_datasets,
    training_rows,
)
from verl_rsim.training.preflight.late_lookups import check_lookups
from verl_rsim.training.preflight.lora import check_lora
from verl_rsim.training.preflight.model_checks import check_attention, check_context, check_logits, check_positions
from verl_rsim.training.preflight.verl_option_rules import check_options
from verl_rsim.utils.errors import ConfigError, JobWarning

NO_CRITIC = "rSIM has no critic; choose an estimator that needs none, e.g. grpo"
_NO_SQUARES = "verl's trainer computes no sums of squared probabilities for it; choose e.g. grpo"
UNUSABLE_ESTIMATORS = {
    "gae": NO_CRITIC,
    "remax": "verl's trainer computes no baselines for it; choose e.g. grpo",
    "optimal_token_baseline": _NO_SQUARES,
    "tir_optimal_token_baseline": _NO_SQUARES,
    "gdpo": "verl's trainer gives it no rewards by name; choose e.g. grpo",
}
"""Estimators of verl that a job of two policies cannot use, with the reason."""
BLOCKS = {"reasoner": "actor_rollout_ref", "planner": "planner"}
MAX_SERVER_SHARE = 0.95
"""Largest share of a GPU's memory for all servers; the CUDA contexts of the workers need the rest."""


@dataclass(frozen=True, slots=True)
class ValidatedJob:
    """Holds what the checks of a job have read.

    Attributes:
        rsim: the validated ``rsim`` block.
        data: what was found in the datasets.
        dialogue: the dialogue with both models' tokenizers.
    """

    rsim: RsimConfig
    data: JobData
    dialogue: Dialogue


def validate_job(config: DictConfig) -> ValidatedJob:
    """Checks a whole configuration, and the rows of its datasets; warns with :class:`JobWarning`.

    Raises:
        ConfigError: the job cannot work as configured.
        DataError: a file of a dataset is damaged.
    """
    check_options(config)
    rsim = parse_config(cast(Mapping[str, Any], OmegaConf.to_container(config.rsim, resolve=True)))
    PlannerScorer(rsim.reward)  # raises if it cannot import a reward term of the user
    _check_verl_options(config)
    check_lookups(config)
    trainer = config.trainer
    root = Path(trainer.default_local_dir).absolute()
    checkpoint = resume_folder(trainer.resume_mode, root, trainer.resume_from_path)
    if checkpoint:
        _check_ranks(config, rsim, checkpoint)
    data = read_datasets(config, rsim)
    _check_schedule(config, rsim, training_rows(config, data))
    _check_policies(config, rsim)
    dialogue = _check_dialogue(config, rsim, data)
    if rsim.planner_decoding == "constrained":
        _check_strategy_policy(config, BLOCKS["reasoner" if rsim.shared_weights else "planner"])
    if config.planner.actor.use_prefix_grouper and (rsim.planner_decoding == "free" or rsim.shared_weights):
        fix = "only a planner with weights of its own and constrained decoding shares prompts; set it to False"
        raise ConfigError("planner.actor.use_prefix_grouper", True, fix)
    return ValidatedJob(rsim, data, dialogue)


def _check_schedule(config: DictConfig, rsim: RsimConfig, rows: int | None) -> None:
    """Checks that each stage of the schedule trains at least one role that is not frozen."""
    total = config.trainer.total_training_steps
    if total is None and rows is not None:
        total = rows // config.data.train_batch_size * config.trainer.total_epochs
    # If only verl can count the rows, the total is a guess: the trainer builds the schedule again with the real one.
    build_schedule(rsim.schedule, rsim.weight, total or 1000).check_trainable(rsim.frozen)


def _check_policies(config: DictConfig, rsim: RsimConfig) -> None:
    """Checks the blocks of the policies one by one, then whether the policies work together."""
    roles = ("reasoner",) if rsim.shared_weights else tuple(BLOCKS)
    for role in roles:
        _check_policy(config, role, BLOCKS[role], frozen=role in rsim.frozen)
        check_lora(config[BLOCKS[role]], BLOCKS[role], frozen=role in rsim.frozen)
    if rsim.shared_weights:
        _check_shared_weights(config)
    elif "planner" not in rsim.frozen:
        check_positions(config.planner.model, config.actor_rollout_ref.model)
    servers_share_gpus = not (rsim.shared_weights or rsim.planner_pool.enable)
    if config.trainer.device == "cuda" and not cpu.is_chosen() and servers_share_gpus:
        _check_memory_shares(config)


def _check_ranks(config: DictConfig, rsim: RsimConfig, checkpoint: Path) -> None:
    """Checks that each policy has as many GPUs as saved it: verl's checkpoints have one shard for each GPU."""
    for policy in read_state(checkpoint).trained:
        role = "reasoner" if policy == SHARED else policy
        shards = sum(1 for _ in (checkpoint / FOLDERS[policy]).glob("model_world_size_*_rank_*.pt"))
        if role in rsim.frozen or shards in (0, gpus_of(config, role)):
            continue
        pool = "rsim.planner_pool" if role == "planner" and rsim.planner_pool.enable else "trainer"
        fix = f"the {role} was saved by {shards} GPUs; only as many can resume {checkpoint}, or export it"
        raise ConfigError(f"{pool}.n_gpus_per_node", pool_of(config, role).n_gpus_per_node, fix)


def _check_verl_options(config: DictConfig) -> None:
    _check_advantages(config)
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        fix = "a reward model on the training GPUs scores too late for the planner; set it to true"
        raise ConfigError("reward.reward_model.enable_resource_pool", False, fix)
    manager = config.reward.reward_manager.name
    if config.reward.reward_manager.source == "register" and manager not in REWARD_MANAGER:
        fix = f"choose one of {', '.join(sorted(REWARD_MANAGER))}"
        raise ConfigError("reward.reward_manager.name", manager, fix)
    if config.reward.custom_reward_function.path and manager in ("rsim", "rsim_math", "rsim_code"):
        fix = f"{manager} has its own scorer and would ignore reward.custom_reward_function; set it to naive"
        raise ConfigError("reward.reward_manager.name", manager, fix)
    if is_distillation_enabled(config.get("distillation")):
        raise ConfigError("distillation.enabled", True, "rSIM has no teacher; set it to False")
    groups = config.algorithm.get("filter_groups")
    if groups and groups.enable and groups.metric == "reward":
        fix = "it would compare rewards of both roles; choose acc, planner_reward or reasoner_reward"
        raise ConfigError("algorithm.filter_groups.metric", "reward", fix)
    agent = config.actor_rollout_ref.rollout.agent
    for key, wanted in (
        ("default_agent_loop", "rsim"),
        ("agent_loop_manager_class", "verl_rsim.training.agent_loop.RsimAgentLoopManager"),
    ):
        if agent.get(key) != wanted:
            raise ConfigError(f"actor_rollout_ref.rollout.agent.{key}", agent.get(key), f"must be {wanted}")


def _check_advantages(config: DictConfig) -> None:
    if need_critic(config):
        raise ConfigError("algorithm.adv_estimator", str(config.algorithm.adv_estimator), NO_CRITIC)
    usable = sorted(set(ADV_ESTIMATOR_REGISTRY) - set(UNUSABLE_ESTIMATORS))
    for key in ("algorithm.adv_estimator", "rsim.planner_adv_estimator"):
        chosen = OmegaConf.select(config, key)
        if chosen is None:
            continue
        name = getattr(chosen, "value", str(chosen))
        if name in UNUSABLE_ESTIMATORS:
            raise ConfigError(key, name, UNUSABLE_ESTIMATORS[name])
        if name not in usable:
            raise ConfigError(key, name, f"choose one of {', '.join(usable)}")


def _check_policy(config: DictConfig, role: str, key: str, *, frozen: bool) -> None:
    block = config[key]
    path = block.model.get("path") if not OmegaConf.is_missing(block.model, "path") else None
    if not path:
        raise ConfigError(f"{key}.model.path", path, f"name the {role}'s model: a Hugging Face folder or id")
    looks_local = str(path).startswith(("/", ".", "~"))
    if looks_local and not (Path(path).expanduser() / "config.json").is_file():
        raise ConfigError(f"{key}.model.path", path, "there is no model here (no config.json); check the path")
    if cpu.is_chosen() and block.actor.strategy != "fsdp2":
        raise ConfigError(f"{key}.actor.strategy", block.actor.strategy, "on a CPU only fsdp2 can sync its weights")
    if block.rollout.n != config.actor_rollout_ref.rollout.n:
        fix = "must equal actor_rollout_ref.rollout.n: an episode gives each policy one row"
        raise ConfigError(f"{key}.rollout.n", block.rollout.n, fix)
    if not block.rollout.calculate_log_probs:
        raise ConfigError(f"{key}.rollout.calculate_log_probs", False, "must be true: training needs the log-probs")
    check_context(block, block.rollout, key)
    check_batch_sizes(config, role, key, frozen=frozen)
    if config.trainer.device == "cuda" and not cpu.is_chosen() and not frozen:
        check_attention(block.model, key)


def _check_memory_shares(config: DictConfig) -> None:
    """Checks that the servers of both roles, which are awake at the same time in a rollout, fit on the same GPUs.

    The shares say nothing about a server whose cache is set in bytes.
    """
    share, cache = "rollout.gpu_memory_utilization", "rollout.engine_kwargs.vllm.kv_cache_memory_bytes"
    if any(OmegaConf.select(config, f"{block}.{cache}") for block in BLOCKS.values()):
        return
    planner = OmegaConf.select(config, f"planner.{share}")
    reasoner = OmegaConf.select(config, f"actor_rollout_ref.{share}")
    # Rounded: in floating point, shares such as 0.65 + 0.3 may add up to a little more than 0.95.
    if round(planner + reasoner, 6) > MAX_SERVER_SHARE:
        fix = (
            f"with actor_rollout_ref.{share}={reasoner} both servers would hold {planner + reasoner:.2f} of the same "
            f"GPUs, and {MAX_SERVER_SHARE} is the most that fits; lower the larger one"
        )
        raise ConfigError(f"planner.{share}", planner, fix)


def _check_shared_weights(config: DictConfig) -> None:
    """Checks the planner's block for a job in which the reasoner's model plays both roles."""
    model, path = config.actor_rollout_ref.model.path, OmegaConf.select(config, "planner.model.path")
    if path not in (None, model):
        fix = f"rsim.shared_weights has one model, actor_rollout_ref.model.path={model}; set this one to null"
        raise ConfigError("planner.model.path", path, fix)
    planner, reasoner = config.planner.rollout.temperature, config.actor_rollout_ref.rollout.temperature
    if planner != reasoner:
        fix = f"must equal actor_rollout_ref.rollout.temperature={reasoner}: one pass scores both roles' rows"
        raise ConfigError("planner.rollout.temperature", planner, fix)
    check_context(config.actor_rollout_ref, config.planner.rollout, BLOCKS["planner"])
    if config.rsim.planner_decoding == "constrained":
        check_logits(config.actor_rollout_ref.model)


def _check_strategy_policy(config: DictConfig, owner: str) -> None:
    """Checks the options on which constrained decoding depends.

    The engine that scores only the nine labels needs FSDP without sequence parallelism and a plain head. The servers
    must sample from exactly the distribution that is trained, so truncation by top-p or top-k is refused.

    Args:
        config: the whole configuration.
        owner: name of the block with the planner's weights and servers.
    """
    allowed_values = {
        f"{owner}.actor.strategy": ("fsdp", "fsdp2"),
        f"{owner}.actor.ulysses_sequence_parallel_size": (1, None),
        f"{owner}.model.use_fused_kernels": (False,),
        f"{owner}.model.mtp.enable": (False,),
        "planner.rollout.top_p": (1, 1.0),
        "planner.rollout.top_k": (-1, 0),
        f"{owner}.rollout.logprobs_mode": ("processed_logprobs",),
    }
    for key, allowed in allowed_values.items():
        value = OmegaConf.select(config, key)
        if value not in allowed:
            names = dict.fromkeys(item for item in allowed if item is not None)  # 1 and 1.0 are one key
            fix = f"must be {' or '.join(map(str, names))} with constrained decoding"
            raise ConfigError(key, value, fix)


def _check_dialogue(config: DictConfig, rsim: RsimConfig, data: JobData) -> Dialogue:
    """Checks that labels are single tokens, templates fit, and texts and questions leave room in the rows."""
    dialogue = build_dialogue(config, rsim)
    if dialogue.constrained:
        _ = dialogue.label_ids  # raises if a label is not a single token of the planner's tokenizer
    for finding in _template_findings(config, rsim, dialogue, data):
        if finding.refused:
            raise finding.error()
        warnings.warn(str(finding.error()), JobWarning, stacklevel=2)
    longest, response_length = dialogue.longest_injection(), config.actor_rollout_ref.rollout.response_length
    if response_length < longest + 1:  # at least one token must be left for the reasoner
        fix = f"the longest instruction alone takes {longest} tokens; raise it"
        raise ConfigError("actor_rollout_ref.rollout.response_length", response_length, fix)
    menu = len(dialogue.planner.chat(planner_messages([{"role": "user", "content": "?"}]), begin=CUE))
    if config.planner.rollout.prompt_length <= menu:
        fix = f"the planner's menu alone takes {menu} tokens; raise it to leave room for the question"
        raise ConfigError("planner.rollout.prompt_length", config.planner.rollout.prompt_length, fix)
    check_lengths(config, data, dialogue)
    return dialogue


def _template_findings(
    config: DictConfig, rsim: RsimConfig, dialogue: Dialogue, data: JobData
) -> list[TemplateFinding]:
    """Returns the mismatches between both models' chat templates and the dialogue."""
    questions = questions_by_roles(data)
    findings: list[TemplateFinding] = []
    for role, codec in (("planner", dialogue.planner), ("reasoner", dialogue.reasoner)):
        block = BLOCKS["reasoner" if rsim.shared_weights else role]
        names = TemplateSettings(
            role=role,
            model_key=f"{block}.model.path",
            model=str(config[block].model.path),
            arguments_key="+data.apply_chat_template_kwargs",
            own_template=f"set {block}.model.custom_chat_template to a template of your own",
            merge_system="rsim.merge_system=true",
        )
        findings += check_template(codec, questions if role == "reasoner" else {}, names)
    return findings
