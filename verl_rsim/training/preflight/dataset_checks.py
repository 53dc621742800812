"""Checks that a job's datasets can be played by both models and scored, by reading them as the job will."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from verl_rsim.config.schema import RsimConfig
from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.prompts import Codec, Message
from verl_rsim.data.dataset_survey import DatasetSurvey, survey
from verl_rsim.data.ground_truths import TruthRules
from verl_rsim.data.row_reader import RowReader
from verl_rsim.reward.manager import build_sandbox
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.utils.errors import ConfigError, JobWarning

DATASETS = ("data.train_files", "data.val_files")


@dataclass(frozen=True, slots=True)
class JobData:
    """Holds what was found in a job's datasets.

    Attributes:
        reader: reads a row as the job needs it.
        surveys: what was found, by the setting that names the dataset; without datasets that verl alone can read
            (remote files, and all files if ``data.custom_cls`` names a class of the user).
    """

    reader: RowReader
    surveys: Mapping[str, DatasetSurvey]


def read_datasets(config: DictConfig, rsim: RsimConfig) -> JobData:
    """Reads all rows of a job's datasets, and warns of what a user should know of them.

    Raises:
        ConfigError: a file is absent, more rows are bad than ``rsim.max_bad_rows``, or no sandbox works for programs.
        DataError: a file is damaged.
    """
    types = {source: AnswerType(kind) for source, kind in rsim.scoring.answer_types.items()}
    manager = config.reward.reward_manager.name
    own_manager = config.reward.reward_manager.source == "register"
    truths = TruthRules(AnswerTypes(types), manager if own_manager else "custom")
    if manager == "rsim_code":
        build_sandbox(config)  # raises if no sandbox works here
    reader = RowReader(truths, config.data.get("prompt_key", "prompt"))
    surveys: dict[str, DatasetSurvey] = {}
    for key in DATASETS:
        files = _local_files(config, key)
        if files is not None:
            surveys[key] = survey(key, files, reader)
    for found in surveys.values():
        found.check_bad_rows(rsim.max_bad_rows)
        for note in found.notes():
            warnings.warn(f"{found.key}: {note}", JobWarning, stacklevel=2)
    if manager == "rsim" and any(found.coding_tasks for found in surveys.values()):
        build_sandbox(config)
    return JobData(reader, surveys)


def _local_files(config: DictConfig, key: str) -> list[Path] | None:
    """Returns the files of a dataset, or None, with a warning, if verl alone can read them."""
    value = config.data[key.removeprefix("data.")]
    names = [value] if isinstance(value, str) else list(value)
    reason = ""
    if (config.data.get("custom_cls") or {}).get("path"):
        reason = "data.custom_cls names a class of your own, which reads them"
    elif any("://" in name for name in names):
        reason = "they are not on this machine"
    if reason:
        warnings.warn(f"{key}: the rows were not checked: {reason}", JobWarning, stacklevel=2)
        return None
    return [Path(name).expanduser() for name in names]


def training_rows(config: DictConfig, data: JobData) -> int | None:
    """Returns the number of training rows, or None if verl alone can read them.

    Raises:
        ConfigError: they are fewer than a batch.
    """
    if "data.train_files" not in data.surveys:
        return None
    rows = data.surveys["data.train_files"].usable
    limit = config.data.get("train_max_samples", -1)
    if 0 < limit < rows:
        rows = limit
    if rows < config.data.train_batch_size:
        fix = f"the training set has only {rows} rows; lower it, or add data"
        raise ConfigError("data.train_batch_size", config.data.train_batch_size, fix)
    return rows


def questions_by_roles(data: JobData) -> dict[str, list[Sequence[Message]]]:
    """Returns the first question of each sequence of roles in each dataset, by the dataset's key."""
    return {key: list(found.first_of_roles.values()) for key, found in data.surveys.items()}


def check_lengths(config: DictConfig, data: JobData, dialogue: Dialogue) -> None:
    """Checks, on a sample of each dataset, that the questions fit into the prompts of both roles.

    An episode whose prompt is too long ends before its first turn and teaches nothing.

    Raises:
        ConfigError: every question of a dataset is too long for a role.
    """
    limits = dialogue.limits
    keys = {"planner": "planner.rollout.prompt_length", "reasoner": "actor_rollout_ref.rollout.prompt_length"}
    budgets = {"planner": limits.planner_prompt, "reasoner": limits.reasoner_prompt}
    for found in data.surveys.values():
        prompts = [dialogue.prompts(question) for question in found.sample]
        for index, role in enumerate(keys):
            lengths = [len(prompt[index]) for prompt in prompts]
            _check_budget(found.key, lengths, keys[role], budgets[role], role)
        _check_filter(config, found, dialogue.reasoner)


def _check_budget(dataset: str, lengths: Sequence[int], key: str, budget: int, role: str) -> None:
    too_long = sum(length > budget for length in lengths)
    if not too_long:
        return
    if too_long == len(lengths):
        fix = (
            f"every question of {dataset} is longer in the {role}'s prompt: {min(lengths)} to {max(lengths)} tokens; "
            f"raise it to {max(lengths)}"
        )
        if role == "reasoner":
            fix += " (it is data.max_prompt_length unless you set it)"
        raise ConfigError(key, budget, fix)
    text = (
        f"{dataset}: {too_long} of {len(lengths)} sampled questions are longer than {key}={budget} in the {role}'s "
        f"prompt; their episodes end before the first turn. The longest has {max(lengths)} tokens"
    )
    warnings.warn(text, JobWarning, stacklevel=3)


def _check_filter(config: DictConfig, found: DatasetSurvey, codec: Codec) -> None:
    """Checks that verl's filter of long prompts leaves rows; it drops those that the template refuses, too."""
    if not config.data.get("filter_overlong_prompts"):
        return
    limit = config.data.max_prompt_length
    lengths = [len(codec.chat(question)) for question in found.sample]
    kept = sum(length <= limit for length in lengths)
    if kept == 0:
        fix = f"data.filter_overlong_prompts would drop every question of {found.key}: the shortest has {min(lengths)}"
        raise ConfigError("data.max_prompt_length", limit, f"{fix} tokens; raise it")
    if kept < len(lengths):
        text = (
            f"{found.key}: data.filter_overlong_prompts drops {len(lengths) - kept} of {len(lengths)} sampled questions"
        )
        warnings.warn(text, JobWarning, stacklevel=3)
