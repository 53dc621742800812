"""Derives the configuration of each policy from the configuration of the job. Nothing here changes its input."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from verl_rsim.config.schema import ROLES, RsimConfig, pool_of
from verl_rsim.data.dataset_survey import DatasetSurvey, write_usable_rows
from verl_rsim.data.row_reader import BAD_ROWS, RowReader, write_bad_rows
from verl_rsim.training.preflight.dataset_checks import JobData

STRATEGY_MODEL, SHARED_PROMPT_MODEL = "strategy_policy", "shared_prompt_policy"
SHARED_MODEL, LANGUAGE_MODEL = "shared_policy", "language_model"
"""verl's ``model.model_type``: chooses the training engine (:mod:`verl_rsim.training.strategy_engine`)."""


@dataclass(frozen=True, slots=True)
class PolicyConfigs:
    """Holds a whole verl configuration for each role, with the role's block as ``actor_rollout_ref``.

    Attributes:
        reasoner: also the configuration of the training loop, the agent loop and the rewards; keeps the block
            ``planner``.
        planner: has no reward workers of its own.
    """

    reasoner: DictConfig
    planner: DictConfig


def with_usable_rows(config: DictConfig, data: JobData, folder: Path) -> DictConfig:
    """Returns the configuration with copies of the datasets that verl cannot use as they stand.

    Such datasets have rows that cannot be used, or questions or ground truths in another form than verl's.

    Args:
        config: the configuration of the job.
        data: what was found in its datasets.
        folder: the run's folder; gets the copies (``data/``) and the list of the rows left out.
    """
    surveys = [found for found in data.surveys.values() if found.changed]
    (folder / BAD_ROWS).unlink(missing_ok=True)
    if not surveys:
        return config
    bad = [row for found in surveys for row in found.bad]
    if bad:
        write_bad_rows(folder / BAD_ROWS, bad)
    changed = copy.deepcopy(config)
    with open_dict(changed):
        for found in surveys:
            changed.data[found.key.removeprefix("data.")] = _copies(found, data.reader, folder / "data")
    return changed


def _copies(found: DatasetSurvey, reader: RowReader, folder: Path) -> list[str]:
    """Writes copies of the files that need one; returns all files of the dataset as verl reads them."""
    files = []
    for number, file in enumerate(found.files):
        if file in found.changed:
            # Written anew at every start: the source may have changed since the last one.
            target = folder / f"{found.key.removeprefix('data.').removesuffix('_files')}_{number}.parquet"
            write_usable_rows(file, reader, target)
            file = target
        files.append(str(file))
    return files


def prepare_configs(config: DictConfig, rsim: RsimConfig) -> PolicyConfigs:
    """Returns the configurations of both policies.

    Args:
        config: the configuration of the job (``actor_rollout_ref`` is the reasoner's block, ``planner`` the planner's).
        rsim: its validated ``rsim`` block.
    """
    prepared = copy.deepcopy(config)
    with open_dict(prepared):
        # verl compares the mode with "sync" in many places; any other name selects its asynchronous replay buffer.
        prepared.trainer.v1.trainer_mode = "sync"
        for role in ROLES:
            _prepare_block(prepared, role, rsim)
    return PolicyConfigs(reasoner=prepared, planner=_planner_config(prepared))


def _prepare_block(config: DictConfig, role: str, rsim: RsimConfig) -> None:
    """Fills in a role's block: its engine, its servers and the length of their rows."""
    block = config.planner if role == "planner" else config.actor_rollout_ref
    block.model.model_type = model_type(role, rsim, share_prompts=block.actor.use_prefix_grouper)
    block.rollout.name = rollout_name(role, role in rsim.frozen)
    if role in rsim.frozen:
        block.rollout.load_format = "auto"  # no trainer sends weights: the servers load the model themselves
    if block.rollout.max_model_len is None:
        # verl would take the model's whole context, and vLLM's cache must hold at least one row of that length.
        block.rollout.max_model_len = longest_row(config, role, shared=rsim.shared_weights)


def model_type(role: str, rsim: RsimConfig, *, share_prompts: bool = False) -> str:
    """Returns verl's ``model_type`` of a role: which training engine computes its log-probs.

    Args:
        role: "planner" or "reasoner".
        rsim: the validated ``rsim`` block.
        share_prompts: the role's ``actor.use_prefix_grouper``.
    """
    if rsim.planner_decoding == "free":
        return LANGUAGE_MODEL
    if rsim.shared_weights:
        return SHARED_MODEL
    if role == "reasoner":
        return LANGUAGE_MODEL
    return SHARED_PROMPT_MODEL if share_prompts else STRATEGY_MODEL


def rollout_name(role: str, frozen: bool) -> str:
    """Returns the name under which verl finds the servers of a role (:mod:`verl_rsim.training.workers`)."""
    if role != "planner" and not frozen:
        return "vllm"
    return f"rsim_{role}{'_frozen' if frozen else ''}"


def longest_row(config: DictConfig, role: str, *, shared: bool) -> int:
    """Returns the tokens of the longest row that the servers of ``role`` must take.

    Args:
        shared: one model plays both roles, so that its servers take the rows of both.
    """
    blocks = {"planner": config.planner, "reasoner": config.actor_rollout_ref}
    rows = [block.rollout for name, block in blocks.items() if shared or name == role]
    return max(row.prompt_length + row.response_length for row in rows)


def _planner_config(config: DictConfig) -> DictConfig:
    """Returns the configuration of the planner's policy: the planner's block becomes ``actor_rollout_ref``."""
    derived = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(derived, DictConfig)
    derived.actor_rollout_ref = derived.pop("planner")
    derived.algorithm.adv_estimator = derived.rsim.planner_adv_estimator or derived.algorithm.adv_estimator
    pool = pool_of(config, "planner")
    derived.trainer.n_gpus_per_node, derived.trainer.nnodes = pool.n_gpus_per_node, pool.nnodes
    derived.actor_rollout_ref.rollout.n_gpus_per_node = pool.n_gpus_per_node  # verl spreads a server's ranks by it
    derived.reward.num_workers = 0  # the reasoner's policy owns the reward workers
    derived.reward.reward_model.enable = derived.reward.reward_model.enable_resource_pool = False
    return derived
