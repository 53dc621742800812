"""Trains a planner and a reasoner in one loop: verl's trainer mode ``rsim``.

One training step does this, in order: it samples episodes, splits their rows by role, computes advantages and updates
each policy with its stage's weight, saves, and syncs the servers of both. :class:`RsimTrainer` is the reasoner's policy
and drives verl's own training loop; it creates and holds the planner's policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.debug import marked_timer

from verl_rsim.core.episode_record import from_json
from verl_rsim.core.schedule import Stage, build_schedule
from verl_rsim.monitoring import job_events
from verl_rsim.monitoring.alarms import AlarmMonitor
from verl_rsim.monitoring.console import CompactMetrics, StepConsole
from verl_rsim.monitoring.episode_log import EPISODES_FOLDER, EpisodeLog
from verl_rsim.monitoring.job_events import EventConsole
from verl_rsim.monitoring.metrics import group_metrics
from verl_rsim.monitoring.metrics_file import metrics_file, metrics_until
from verl_rsim.monitoring.watchdog.watchdog import Watchdog, actor_id, job_actors
from verl_rsim.training import cpu
from verl_rsim.training.batch_sampler import (
    RsimReplayBuffer,
    all_rows,
    drop_unplayed,
    episode_metrics,
    episodes_of,
    split_by_role,
)
from verl_rsim.training.checkpoint.job_checkpoints import JobCheckpoints
from verl_rsim.training.checkpoint.training_record import training_record
from verl_rsim.training.group_diversity import add_group_diversity
from verl_rsim.training.job_config import PolicyConfigs, prepare_configs, with_usable_rows
from verl_rsim.training.phase_reporter import PhaseReporter
from verl_rsim.training.policy import LearnResult, Policy, role_metrics
from verl_rsim.training.preflight.validate_job import validate_job
from verl_rsim.training.rollout_context import TwoPolicyClient
from verl_rsim.training.step_checks import check_failed_share, raise_alarms
from verl_rsim.utils.artifact_folders import locked_folder
from verl_rsim.utils.errors import ConfigError, RsimError

RUN_LOCK = ".job.lock"
"""Name of the lock file in a run's folder; the kernel releases the lock when the job dies."""


class RsimTrainer(Policy):
    """Trains a planner and a reasoner jointly.

    Args:
        config: the configuration of the job; it is not changed.

    Attributes:
        policies: the policies, planner first.
        policy_of: the policy that plays each role.

    Raises:
        ConfigError: the configuration cannot work; raised before anything is started.
    """

    own_role = "reasoner"
    replay_buffer: RsimReplayBuffer  # type: ignore[assignment]  # wraps verl's
    policies: tuple[Policy, ...]
    policy_of: dict[str, Policy]

    def __init__(self, config: DictConfig):
        job = validate_job(config)
        self.rsim = job.rsim
        self._given_config = config  # with the names of the datasets that the user gave
        folder = self._lock_run_folder(config)
        config = with_usable_rows(config, job.data, folder)
        configs = prepare_configs(config, self.rsim)
        self.watchdog = Watchdog(self._role_servers, self.rsim.watchdog)
        phases = PhaseReporter(self.watchdog, self._current_step)
        phases.start("reading the data")
        super().__init__(configs.reasoner, self.own_role, frozen="reasoner" in self.rsim.frozen, phases=phases)
        self.split_pools = self.rsim.planner_pool.enable
        self._make_policies(configs)
        verl_buffer: Any = self.replay_buffer
        self.replay_buffer = RsimReplayBuffer(verl_buffer, self.rsim.sample_poll_seconds, self.watchdog)
        self.alarms = AlarmMonitor(self.rsim.alarms)
        self._save_due = False  # an alarm asked for a checkpoint
        self._planner_setup: Future[None] | None = None

    def _lock_run_folder(self, config: DictConfig) -> Path:
        """Locks the run's folder until this process ends, so that no second job saves and prunes checkpoints there.

        Returns:
            The folder.

        Raises:
            ConfigError: another job holds the lock.
        """
        folder = Path(config.trainer.default_local_dir).absolute()
        self._run_lock = ExitStack()
        try:
            self._run_lock.enter_context(locked_folder(folder, RUN_LOCK))
        except RsimError:
            fix = "another job trains in this folder; wait until it ends, end it, or name another folder"
            raise ConfigError("trainer.default_local_dir", str(folder), fix) from None
        return folder

    def _make_policies(self, configs: PolicyConfigs) -> None:
        """Creates the planner's policy and says which policy plays which role."""
        frozen = "planner" in self.rsim.frozen
        planner = Policy(
            configs.planner, "planner", frozen=frozen, phases=self.phases, host=self, own_pool=self.split_pools
        )
        self.policies = (planner, self)
        self.policy_of = {"planner": planner, "reasoner": self}

    # ---- a training step, from top to bottom ------------------------------------------------------------------------

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        """Runs one training step up to the updates; verl then saves, calls :meth:`on_step_end` and logs.

        Returns:
            All rows of the step, which verl clears from TransferQueue.
        """
        stage = self.schedule.at(self.global_steps)
        batch = self._sample(sample_batch_size, metrics, timing_raw)
        rows = split_by_role(batch)
        episodes = episodes_of(rows["reasoner"])
        self._record_episodes(rows, episodes, metrics, timing_raw)
        playable = drop_unplayed(rows, episodes)
        if not playable["planner"].keys:  # nothing to learn from
            stage = Stage(stage.until, 0.0, 0.0)
        self._learned_rows = self._update_policies(playable, stage, metrics, timing_raw)
        self._step_metrics = metrics
        self._raise_alarms(metrics)
        return all_rows(rows, self._learned_rows)

    def _sample(self, prompts: int, metrics: dict, timing: dict) -> KVBatchMeta:
        """Waits for the episodes of a batch of prompts and returns their rows.

        Raises:
            JobDied: more episodes failed than ``rsim.max_failed_share`` allows.
        """
        self.phases.begin("rollout")
        with marked_timer("gen", timing, color="red"):
            batch, sampler_metrics = self.replay_buffer.sample(
                global_steps=self.global_steps, partition_id="train", batch_size=prompts
            )
            self.on_sample_end()
        metrics.update(sampler_metrics)
        expected = prompts * self.config.actor_rollout_ref.rollout.n
        metrics["rsim/failed"] = self._check_failed(len(batch.keys) // 2, expected)
        return batch

    def on_sample_end(self) -> None:
        """Lets all servers free their memory for the update."""
        super().on_sample_end()
        self.policy_of["planner"].checkpoint_manager.sleep_replicas()

    def _record_episodes(
        self, rows: dict[str, KVBatchMeta], episodes: list[dict[str, Any]], metrics: dict, timing: dict
    ) -> None:
        """Completes the planner's rewards, measures the episodes and logs a share of them."""
        if self.rsim.reward.group_diversity:
            add_group_diversity(rows["planner"], rows["reasoner"], episodes, self.rsim.reward.group_diversity)
        with marked_timer("records", timing):
            metrics |= episode_metrics(episodes)
            metrics |= group_metrics(rows["reasoner"].keys, [e["reward_extra_info"] for e in episodes])
            self._log_episodes(episodes)
        metrics["rsim/stage"] = self.schedule.index(self.global_steps)

    def _update_policies(
        self, rows: dict[str, KVBatchMeta], stage: Stage, metrics: dict, timing: dict
    ) -> dict[str, KVBatchMeta]:
        """Computes advantages and updates the planner, then the reasoner; in parallel if each has its own GPUs.

        Returns:
            The rows that each role learned from, padded where verl pads them.
        """
        results: dict[str, LearnResult] = {}
        if self.split_pools:
            with ThreadPoolExecutor(len(self.policies), thread_name_prefix="learn") as pool:
                futures = {
                    policy.role: pool.submit(policy.learn, rows[policy.role], stage.weights[policy.role])
                    for policy in self.policies
                }
                for role, future in futures.items():
                    results[role] = future.result()
        else:
            for policy in self.policies:
                results[policy.role] = policy.learn(rows[policy.role], stage.weights[policy.role])
        for result in results.values():
            metrics |= result.metrics
            timing |= result.timing
        return {role: result.rows for role, result in results.items()}

    def _raise_alarms(self, metrics: dict) -> None:
        """Acts on the alarms; a training step that stops the job is logged before, and never saved.

        Raises:
            TrainingCollapsed: an alarm is on whose action is stop.
        """
        self._save_due = raise_alarms(self.alarms, metrics, self.global_steps, self.logger)

    def _save_checkpoint(self) -> None:
        """Saves both policies, the data position and the alarms' counts as one checkpoint."""
        self.phases.begin("save")
        step = self.global_steps
        alarms = self.alarms.state()
        folder = self.checkpoints.save(step, self.policies, self.train_dataloader, alarms, self._step_metrics)
        self.checkpoint_callback.on_save(trainer=self, global_step=step, checkpoint_dir=str(folder), async_save=False)

    def on_step_end(self) -> None:
        """Saves if an alarm asked for it and verl has not, then brings all servers up to date."""
        if self._save_due and self.checkpoints.saved_step != self.global_steps:
            with marked_timer("save_checkpoint", self.timing_raw, color="green"):
                self._save_checkpoint()
        with marked_timer("update_weights", self.timing_raw, color="red"):
            self._sync()

    def _sync(self) -> None:
        """Sends the weights of both policies to their servers."""
        self.phases.begin("weight_sync")
        for policy in self.policies:
            policy.sync(self.global_steps)

    def _validate(self) -> dict[str, float]:
        """Plays the validation questions and returns their metrics under ``val-``."""
        self.phases.begin("validation")
        self.replay_buffer.episodes = []
        metrics = super()._validate()
        episodes = self.replay_buffer.episodes
        expected = len(self.val_dataset) * self.config.actor_rollout_ref.rollout.val_kwargs.n
        played = episode_metrics(episodes)
        played["rsim/failed"] = self._check_failed(len(episodes), expected, "validation ")
        self._log_episodes(episodes)
        metrics |= {f"val-{key}": value for key, value in played.items()}
        self.checkpoints.add_validation(self.global_steps, metrics)
        return CompactMetrics(metrics) if self.rsim.console == "summary" else metrics

    # ---- start ------------------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Starts workers and servers, loads a checkpoint if there is one, and sends the weights to the servers."""
        self.watchdog.run(super().init, starting=True)

    def _setup(self) -> None:
        self._set_up_policies()
        self._resume()
        folder = Path(self.rsim.episode_log.folder or self.checkpoints.root / EPISODES_FOLDER)
        self.episode_log = EpisodeLog(folder.expanduser(), self.global_steps, self.rsim.episode_log.max_file_mb)

    def _set_up_policies(self) -> None:
        """Sets both policies up: in parallel on a CPU, where the start is mostly imports, or on GPUs of their own.

        On the same GPUs it is one after the other, since vLLM measures the free memory while it starts.
        """
        self._setup_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner-setup")
        try:
            super()._setup()
            if self._planner_setup is None:
                self._set_up_planner()
            else:
                self._planner_setup.result()
        finally:
            self._setup_pool.shutdown(wait=False)  # an error of the reasoner is raised without waiting for the planner

    def _set_up_planner(self) -> None:
        self.policy_of["planner"]._setup()

    def _on_pools_reserved(self) -> None:
        """Starts the planner's set-up beside the reasoner's, if they may run in parallel."""
        self.phases.start("loading the models and starting their servers")
        if self.split_pools or cpu.is_chosen():
            self._planner_setup = self._setup_pool.submit(self._set_up_planner)

    def _init_dataloader(self) -> None:
        """Creates verl's data loader, which knows the number of training steps, and the schedule of both policies."""
        PPOTrainer._init_dataloader(self)
        self.schedule = build_schedule(self.rsim.schedule, self.rsim.weight, self.total_training_steps)
        self.schedule.check_trainable(self.rsim.frozen)
        super()._init_dataloader()

    def _resume(self) -> None:
        """Loads both policies and the data position, if there is a checkpoint to resume from."""
        self.phases.start("looking for a checkpoint")
        models = {role: policy.base_model for role, policy in self.policy_of.items()}
        record = training_record(self._given_config, self.rsim, models, self.total_training_steps)
        self.checkpoints = JobCheckpoints(self.config.trainer, self.rsim, self.schedule, record)
        state = self.checkpoints.restore(self.policies, self.train_dataloader)
        if state is not None:
            self.global_steps = state.step
            self.alarms.restore(state.alarms)

    def on_init_end(self) -> None:
        """Brings all servers up to date."""
        self.phases.start("sending the weights to the servers")
        self._sync()

    def get_llm_client(self) -> TwoPolicyClient:
        """Returns the client of the reasoner's servers, which holds the planner's."""
        planner = self.policy_of["planner"].llm_server_manager.get_client()
        return cast(
            TwoPolicyClient, self.llm_server_manager.get_client(client_cls=TwoPolicyClient, planner_client=planner)
        )

    def fit(self, agent_loop_manager: Any) -> None:
        """Runs verl's training loop under the watchdog."""
        self.phases.start("starting the agent loops")
        self._earlier_metrics = metrics_until(metrics_file(self.config.trainer), self.checkpoints.resumed_step)
        self.watchdog.agent_loop_workers = agent_loop_manager.agent_loop_workers
        self.watchdog.actor_names = {actor_id(actor): title for title, actor in self._actors()}

        self._announce_processes()

        def train() -> None:
            super(RsimTrainer, self).fit(agent_loop_manager)

        self.watchdog.run(train)

    # ---- what the watchdog watches ----------------------------------------------------------------------------------

    def _current_step(self) -> int:
        return self.global_steps

    def _role_servers(self) -> list[tuple[str, Any]]:
        """Returns all rollout servers with their roles."""
        servers: list[tuple[str, Any]] = []
        for policy in self.policies:
            servers.extend((policy.role, server) for server in policy.servers())
        return servers

    def _actors(self) -> Iterator[tuple[str, Any]]:
        """Yields the actors that do the job's work, each with its title in error messages."""
        for policy in self.policies:
            yield from _numbered(f"{policy.role} server", policy.servers())
            yield from _numbered(f"{policy.role} worker", policy.actor_rollout_wg.workers)
        yield from _numbered("agent loop worker", self.watchdog.agent_loop_workers)
        yield from _numbered("reward worker", self.get_reward_handles() or ())

    def _announce_processes(self) -> None:
        """Tells the user's terminal which process is which, so that it can show the log of one that died."""
        table = job_actors()
        titles = {table[key]["Pid"]: title for key, title in self.watchdog.actor_names.items() if key in table}
        job_events.emit("processes", names=titles)

    def _check_failed(self, finished: int, expected: int, kind: str = "") -> int:
        """Counts the episodes of this step that are missing; ``kind`` is put before "episodes" in messages.

        Raises:
            JobDied: more episodes failed than ``rsim.max_failed_share`` allows.
        """
        max_share = self.rsim.max_failed_share
        return check_failed_share(finished, expected, self.global_steps, max_share, self.watchdog, kind)

    # ---- logging ----------------------------------------------------------------------------------------------------

    def on_validate_begin(self) -> None:
        """Adapts the loggers; verl calls this before :meth:`on_train_begin` if ``trainer.val_before_train`` is set."""
        self._adapt_loggers()

    def on_train_begin(self) -> None:
        """Adapts the loggers, unless a validation before the training has done so."""
        self._adapt_loggers()

    def _adapt_loggers(self) -> None:
        """Restores the metrics of the steps before a resume, and replaces verl's line for each step by a screen."""
        if "file" in self.logger.logger and self._earlier_metrics:
            # verl's file logger has just begun its file anew
            self.logger.logger["file"].fp.write(self._earlier_metrics)
            self._earlier_metrics = b""
        if self.rsim.console == "summary" and "console" in self.logger.logger:
            screen = EventConsole if job_events.enabled() else StepConsole
            self.logger.logger["console"] = screen(self.total_training_steps)  # type: ignore[assignment]

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        """Adds verl's batch metrics of each role that was trained in this step, and those of the whole step once."""
        self.phases.begin("metrics")
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        with marked_timer("batch_metrics", timing_raw):
            for role, policy in self.policy_of.items():
                if metrics[f"{role}/weight"] > 0:
                    own = policy.batch_metrics(self._learned_rows[role], timing_raw, global_steps, epoch)
                    metrics.update(role_metrics(role, own))
        metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        """Writes each role's rows, decoded with its policy's tokenizer, into a folder of its own."""
        for role, policy in self.policy_of.items():
            if not self._learned_rows[role].keys:
                continue
            policy.global_steps = self.global_steps
            folder = str(Path(rollout_data_dir) / role)
            PPOTrainer._log_rollout_data(policy, self._learned_rows[role], timing_raw, folder)

    def _log_episodes(self, episodes: list[dict[str, Any]]) -> None:
        """Appends the episodes that the rollout has chosen to keep to the episode log."""
        records = []
        for fields in episodes:
            if "episode" in fields:
                records.append(from_json(fields["episode"]).scored(fields["reward_extra_info"]))
        self.episode_log.append(records)

    def _shutdown_dump_executor(self) -> None:
        for policy in self.policies:
            PPOTrainer._shutdown_dump_executor(policy)


def _numbered(title: str, actors: Any) -> Iterator[tuple[str, Any]]:
    """Yields actors with titles that end with their numbers."""
    for number, actor in enumerate(actors):
        yield f"{title} {number}", actor
