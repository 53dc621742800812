"""Saves and restores a job: both policies, the data position and the alarms' counts, as one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from omegaconf import DictConfig

from verl_rsim.config.schema import RsimConfig
from verl_rsim.core.schedule import Schedule
from verl_rsim.monitoring.alarms import AlarmState
from verl_rsim.training.checkpoint import store
from verl_rsim.training.checkpoint.training_record import TrainingRecord, plain_numbers
from verl_rsim.utils.errors import ConfigError, SaveError
from verl_rsim.utils.safe_torch_load import read_tensors


class CheckpointedPolicy(Protocol):
    """A policy as checkpoints see it; :class:`verl_rsim.training.policy.Policy` is one."""

    role: str
    frozen: bool
    actor_rollout_wg: Any

    @property
    def served_dtype(self) -> str: ...

    @property
    def base_model(self) -> str: ...


class JobCheckpoints:
    """Writes and reads the checkpoints of one start of a job.

    Args:
        options: verl's block ``trainer``.
        rsim: the validated ``rsim`` block.
        schedule: the stages of the training.
        record: says how the policies are trained; saved for exports.

    Attributes:
        resumed_step: the last training step of the same run that this start continues; 0 for a new run.
        saved_step: the last training step that this start has saved; -1 before the first.
        validations: the run's first validation and its newest one.
    """

    def __init__(self, options: DictConfig, rsim: RsimConfig, schedule: Schedule, record: TrainingRecord):
        self.options, self.rsim, self.schedule, self.record = options, rsim, schedule, record
        self.root = Path(options.default_local_dir).absolute()
        self.resumed_step = 0
        self.saved_step = -1
        self.validations: tuple[store.ValidationResult, ...] = ()
        self._first_save = store.next_number(self.root)

    def save(
        self,
        step: int,
        policies: Sequence[CheckpointedPolicy],
        dataloader: Any,
        alarms: AlarmState,
        metrics: Mapping[str, Any],
    ) -> Path:
        """Saves a training step and returns its folder.

        Args:
            step: number of completed training steps.
            policies: the job's policies; frozen ones are not saved.
            dataloader: the job's data loader, whose position is saved.
            alarms: the alarms' counts.
            metrics: metrics of the training step; its finite numbers are saved.

        Raises:
            SaveError: the checkpoint could not be written; the ones before it are as they were.
        """
        trained = [policy for policy in policies if not policy.frozen]
        with store.writing(self.root, step) as folder:
            for policy in trained:
                path = str(folder / store.FOLDERS[policy.role])
                policy.actor_rollout_wg.save_checkpoint(path, None, step, max_ckpt_to_keep=None)
            torch.save(dataloader.state_dict(), folder / "data.pt")
            state = store.SavedState(
                step=step,
                stage=self.schedule.index(step),
                trained=tuple(policy.role for policy in trained),
                alarms=alarms,
                dtypes={policy.role: policy.served_dtype for policy in policies},
                models={policy.role: policy.base_model for policy in policies},
                began=self._first_save,
                training=asdict(self.record),
                metrics=plain_numbers(metrics),
                validations=self.validations,
            )
            store.finish(self.root, state, self.options.get("max_actor_ckpt_to_keep"))
        self.saved_step = step
        return folder

    def add_validation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Keeps the result of a validation for later saves, and adds it to the checkpoint of the same training step.

        verl validates after it has saved, so that the last checkpoint would otherwise lack the last result.

        Raises:
            SaveError: the result could not be written; the checkpoint is complete without it.
        """
        result = store.ValidationResult(step, plain_numbers(metrics, "val-"))
        self.validations = (*self.validations[:1], result)
        if step == self.saved_step:
            folder = store.step_folder(self.root, step)
            try:
                store.write_state(folder, replace(store.read_state(folder), validations=self.validations))
            except OSError as error:
                complete = "the checkpoint is complete without it"
                raise SaveError(f"{folder}: the validation's result cannot be added ({error}); {complete}") from error

    def restore(self, policies: Sequence[CheckpointedPolicy], dataloader: Any) -> store.SavedState | None:
        """Loads the checkpoint to resume from and returns its state, or None if the job starts anew.

        Raises:
            ConfigError: the checkpoint does not fit the configuration.
        """
        folder = store.resume_folder(self.options.resume_mode, self.root, self.options.resume_from_path)
        if folder is None:
            return None
        state = store.read_state(folder)
        self._check_resumable(state)
        if folder.parent == self.root:  # the same run continues: its earlier checkpoints and metrics are its own
            self._first_save, self.resumed_step = state.began, state.step
            self.validations = state.validations
        for policy in policies:
            if not policy.frozen and policy.role in state.trained:
                policy.actor_rollout_wg.load_checkpoint(
                    local_path=str(folder / store.FOLDERS[policy.role]),
                    del_local_after_load=self.options.del_local_ckpt_after_load,
                )
        dataloader.load_state_dict(read_tensors(folder / "data.pt"))
        print(f"Resumed both policies and the data position from {folder} (step {state.step})")
        return state

    def _check_resumable(self, state: store.SavedState) -> None:
        """Refuses to resume where the run would silently become another one.

        Raises:
            ConfigError: a trained policy would fall back to its base model, or the schedule's stages have moved.
        """
        if (shared := store.SHARED in state.trained) != self.rsim.shared_weights:
            fix = f"the checkpoint was saved with rsim.shared_weights={shared}; resume with that, or export its models"
            raise ConfigError("rsim.shared_weights", self.rsim.shared_weights, fix)
        lost = sorted(self.rsim.frozen & set(state.trained))
        if lost:
            fix = (
                f"the checkpoint holds a trained {lost[0]}; export it and name the folder as its model, or train it on"
            )
            raise ConfigError("rsim.train", list(self.rsim.train), fix)
        stage = self.schedule.index(state.step)
        if stage != state.stage:
            moved = f"step {state.step} was saved in stage {state.stage} and is now in stage {stage}"
            fix = f"{moved}, because a preset's stages follow the number of steps; list the stages by step number"
            raise ConfigError("rsim.schedule", str(self.rsim.schedule), fix)
