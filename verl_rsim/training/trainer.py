"""verl's trainer mode ``rsim``: two policies, one loop.

``RsimTrainer`` is the reasoner's policy and drives verl's own training loop; the planner's policy hangs on it. One step
reads: sample, split by role, let each policy learn with its stage's weight, sync both, save both.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.debug import marked_timer

from verl_rsim.core.episode_record import from_json
from verl_rsim.core.schedule import Stage, build_schedule
from verl_rsim.monitoring.alarms import AlarmAction, AlarmMonitor
from verl_rsim.monitoring.console import SaidBefore, StepConsole
from verl_rsim.monitoring.episode_log import FOLDER, EpisodeLog
from verl_rsim.monitoring.metrics import group_metrics
from verl_rsim.monitoring.run_summary import metrics_file, metrics_until
from verl_rsim.monitoring.watchdog.watchdog import Watchdog, actor_id
from verl_rsim.training import cpu
from verl_rsim.training.batch_sampler import (
    RsimSampler,
    episode_metrics,
    episodes_of,
    every_row,
    split_by_role,
    with_a_turn,
)
from verl_rsim.training.checkpoint import store
from verl_rsim.training.group_diversity import add_group_diversity
from verl_rsim.training.policy import Policy, longest_row, planner_config, role_metrics
from verl_rsim.training.preflight.validate_job import validate_job
from verl_rsim.utils.errors import ConfigError, JobDied, TrainingCollapsed
from verl_rsim.utils.safe_torch_load import read_tensors


class RsimTrainer(Policy):
    """Trains a planner and a reasoner jointly.

    Raises:
        ConfigError: the configuration cannot work; raised before anything is started.
    """

    own_role = "reasoner"

    def __init__(self, config: DictConfig):
        self.rsim = validate_job(config)
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # what verl compares with; registered as "rsim"
            for role, block in (("planner", config.planner), ("reasoner", config.actor_rollout_ref)):
                constrained = role == "planner" and self.rsim.planner_decoding == "constrained"
                block.model.model_type = "strategy_policy" if constrained else "language_model"
                if block.rollout.max_model_len is None:  # to verl: all that the model takes, which a cache must hold
                    block.rollout.max_model_len = longest_row(config, role, shared=self.rsim.shared_weights)
        derived = planner_config(config)
        super().__init__(config, self.own_role, frozen="reasoner" in self.rsim.frozen)
        self.split = self.rsim.planner_pool.enable
        self.planner = self._make_planner(derived)
        self.players: dict[str, Policy] = {"planner": self.planner, "reasoner": self}
        self.policies = tuple(dict.fromkeys(self.players.values()))
        self.watchdog = Watchdog(
            lambda: [(policy.role, server) for policy in self.policies for server in policy.servers()],
            self.rsim.watchdog,
        )
        self.replay_buffer = RsimSampler(self.replay_buffer, self.rsim.sample_poll_seconds, self.watchdog)
        self.alarms = AlarmMonitor(self.rsim.alarms)
        self._save_due = False  # an alarm asked for it
        self._saved_step = -1

    def _make_planner(self, config: DictConfig) -> Policy:
        """The policy that plays the planner."""
        return Policy(config, "planner", "planner" in self.rsim.frozen, leader=self, own_pool=self.split)

    # ---- start ------------------------------------------------------------------------------------------------------

    def init(self) -> None:
        """Start workers and servers, load a checkpoint if there is one, and hand the weights to the servers."""
        self.watchdog.run(super().init, starting=True)

    def _setup(self) -> None:
        self._set_up_policies()
        self._resume()
        folder = Path(self.rsim.episode_log.folder or self._checkpoint_root / FOLDER)
        self.episode_log = EpisodeLog(folder.expanduser(), self.global_steps, self.rsim.episode_log.max_file_mb)

    def _set_up_policies(self) -> None:
        """Set both policies up: side by side on a CPU, where start-up is imports, or on GPUs of their own; on the same
        GPUs one after the other, since vLLM measures free memory while it starts.
        """
        at_once = self.split or cpu.is_chosen()
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner-setup")
        self._set_up_planner = lambda: pool.submit(self.planner._setup) if at_once else None
        try:
            super()._setup()
            if self._planner_set_up is None:
                self.planner._setup()
            else:
                self._planner_set_up.result()
        finally:
            pool.shutdown(wait=False)  # an error of the reasoner's is told at once, whatever the planner's waits for

    def _init_dataloader(self) -> None:
        """verl's, which counts the training steps; then the schedule, by which each policy counts its updates."""
        PPOTrainer._init_dataloader(self)
        self.schedule = build_schedule(self.rsim.schedule, self.rsim.weight, self.total_training_steps)
        self.schedule.check_trainable(self.rsim.frozen)
        super()._init_dataloader()

    def _pools_ready(self) -> None:
        self._planner_set_up = self._set_up_planner()

    def on_init_end(self) -> None:
        """Bring all servers up to date."""
        self._sync()

    def get_llm_client(self) -> Any:
        """The reasoner's client, with the planner's as its attribute ``planner``."""
        client = super().get_llm_client()
        client.planner = PPOTrainer.get_llm_client(self.planner)
        return client

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's training loop, under watch."""
        self._earlier = metrics_until(metrics_file(self.config.trainer), self._taken_over)
        self.watchdog.agents = agent_loop_manager.agent_loop_workers
        self.watchdog.titles = {actor_id(actor): title for title, actor in self._actors()}
        self.watchdog.run(lambda: super(RsimTrainer, self).fit(agent_loop_manager))

    def _actors(self) -> Iterator[tuple[str, Any]]:
        """The actors that do the job's work, each with what errors call it."""
        for policy in self.policies:
            yield from ((f"{policy.role} server {rank}", server) for rank, server in enumerate(policy.servers()))
            workers = policy.actor_rollout_wg.workers
            yield from ((f"{policy.role} worker {rank}", worker) for rank, worker in enumerate(workers))
        yield from ((f"agent loop worker {rank}", worker) for rank, worker in enumerate(self.watchdog.agents))
        yield from ((f"reward worker {rank}", worker) for rank, worker in enumerate(self.get_reward_handles() or ()))

    def on_validate_begin(self) -> None:
        """The first hook after verl has made its loggers, where it validates first."""
        self._adapt_loggers()

    def on_train_begin(self) -> None:
        """The first hook otherwise."""
        self._adapt_loggers()

    def _adapt_loggers(self) -> None:
        """Put back the steps that this start resumed from, since verl's file logger begins its file anew; and let one
        screen a step take the place of verl's line, if the user has a console logger and wants it so.
        """
        if "file" in self.logger.logger and self._earlier:
            self.logger.logger["file"].fp.write(self._earlier)
            self._earlier = b""
        if self.rsim.console == "summary" and "console" in self.logger.logger:
            self.logger.logger["console"] = StepConsole(self.total_training_steps)

    def begins(self, what: str, role: str = "") -> None:
        """Tell the watchdog."""
        whose = f"{role}'s " if role else ""
        kind = what.replace(" ", "_").replace("-", "_")
        self.watchdog.progress(f"step {self.global_steps}: {whose}{what}", kind, role)

    def done(self, role: str) -> None:
        """Tell the watchdog."""
        self.watchdog.done(role)

    # ---- step -------------------------------------------------------------------------------------------------------

    def _step_once(self, metrics: dict, timing_raw: dict, sample_batch_size: int) -> KVBatchMeta:
        """Sample episodes and let each policy learn from its rows."""
        stage = self.schedule.at(self.global_steps)
        with marked_timer("gen", timing_raw, color="red"):
            batch = self._sample(sample_batch_size, metrics)
        rows = split_by_role(batch)
        episodes = episodes_of(rows["reasoner"])
        if self.rsim.reward.group_diversity:
            add_group_diversity(rows["planner"], rows["reasoner"], episodes, self.rsim.reward.group_diversity)
        with marked_timer("records", timing_raw):
            metrics |= episode_metrics(episodes)
            metrics |= group_metrics(rows["reasoner"].keys, [e["reward_extra_info"] for e in episodes])
            self._log_episodes(episodes)
        metrics["rsim/stage"] = self.schedule.index(self.global_steps)
        played = with_a_turn(rows, episodes)
        if not played["planner"].keys:
            stage = Stage(stage.until, 0.0, 0.0)
        self._rows = self._learn(played, stage, metrics, timing_raw)
        self._raise_alarms(metrics)
        return every_row(rows, self._rows)

    def _learn(self, rows: dict[str, KVBatchMeta], stage: Stage, metrics: dict, timing: dict) -> dict[str, KVBatchMeta]:
        """Update both policies: at the same time where each has its own GPUs, else one after the other.

        Returns:
            The rows of each, padded where verl pads them.
        """

        def learn(policy: Policy) -> tuple[KVBatchMeta, dict, dict]:
            found: tuple[dict, dict] = ({}, {})
            return policy.learn(rows[policy.role], stage.weights[policy.role], *found), *found

        if self.split:
            with ThreadPoolExecutor(len(self.policies), thread_name_prefix="learn") as pool:
                results = list(pool.map(learn, self.policies))
        else:
            results = [learn(policy) for policy in self.policies]
        for _, found, seconds in results:
            metrics |= found
            timing |= seconds
        return {policy.role: learned for policy, (learned, *_) in zip(self.policies, results, strict=True)}

    def _sample(self, prompts: int, metrics: dict) -> KVBatchMeta:
        """All finished episodes of a batch of prompts.

        Raises:
            JobDied: more episodes failed than ``rsim.max_failed_share`` allows.
        """
        self.begins("rollout")
        batch, found = self.replay_buffer.sample(
            global_steps=self.global_steps, partition_id="train", batch_size=prompts
        )
        self.on_sample_end()
        metrics.update(found)
        expected = prompts * self.config.actor_rollout_ref.rollout.n
        metrics["rsim/failed"] = self._failed(len(batch.keys) // 2, expected)
        return batch

    def _failed(self, found: int, expected: int, kind: str = "") -> int:
        """How many episodes of this step are missing; ``kind``: goes before "episodes" where that is said.

        Raises:
            JobDied: more than ``rsim.max_failed_share`` allows.
        """
        failed = expected - found
        if not failed:
            return 0
        said = f"{failed} of {expected} {kind}episodes of step {self.global_steps} failed"
        if failed <= self.rsim.max_failed_share * expected:
            print(f"WARNING: {said}{self.watchdog.failures()}; the tracebacks are in the log above", flush=True)
            return failed
        self.watchdog.check()  # names the culprit if it is one of them
        raise JobDied(
            f"{said}, more than rsim.max_failed_share={self.rsim.max_failed_share} allows"
            f"{self.watchdog.failures()}; the tracebacks are in the log above"
        )

    def _raise_alarms(self, metrics: dict) -> None:
        """Do what the alarms ask for; a step that stops the job is logged before, and never saved.

        Raises:
            TrainingCollapsed: an alarm is on whose action is stop.
        """
        alerts = self.alarms.check(metrics)
        for alert in alerts:
            if alert.fresh:
                print(f"WARNING: step {self.global_steps}: {alert}", flush=True)
        self._save_due = any(alert.fresh and alert.config.action == AlarmAction.SAVE.value for alert in alerts)
        stops = [alert for alert in alerts if alert.config.action == AlarmAction.STOP.value]
        if stops:
            self.logger.log(data=metrics, step=self.global_steps)
            said = " ".join(map(str, stops))
            raise TrainingCollapsed(f"step {self.global_steps}: {said} Nothing of this step was saved.")

    def on_sample_end(self) -> None:
        """Let all servers free their memory for the update."""
        super().on_sample_end()
        self.planner.checkpoint_manager.sleep_replicas()

    def on_step_end(self) -> None:
        """Save if an alarm asked for it, then bring all servers up to date."""
        if self._save_due and self._saved_step != self.global_steps:
            with marked_timer("save_checkpoint", self.timing_raw, color="green"):
                self._save_checkpoint()
        with marked_timer("update_weights", self.timing_raw, color="red"):
            self._sync()

    def _sync(self) -> None:
        self.begins("weight sync")
        for policy in self.policies:
            policy.sync(self.global_steps)

    def _validate(self) -> dict[str, float]:
        self.begins("validation")
        self.replay_buffer.episodes = []
        metrics = super()._validate()
        episodes = self.replay_buffer.episodes
        expected = len(self.val_dataset) * self.config.actor_rollout_ref.rollout.val_kwargs.n
        found = episode_metrics(episodes)
        found["rsim/failed"] = self._failed(len(episodes), expected, "validation ")
        self._log_episodes(episodes)
        metrics |= {f"val-{key}": value for key, value in found.items()}
        return SaidBefore(metrics) if self.rsim.console == "summary" else metrics

    # ---- records ----------------------------------------------------------------------------------------------------

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, global_steps: int, epoch: int
    ) -> None:
        """verl's batch metrics of each role that was learned, under its name; those of the whole step once."""
        self.begins("metrics")
        metrics.update({"training/global_step": global_steps, "training/epoch": epoch})
        with marked_timer("batch_metrics", timing_raw):
            for role, policy in self.players.items():
                if metrics[f"{role}/weight"] > 0:
                    found = policy.batch_metrics(self._rows[role], timing_raw, global_steps, epoch)
                    metrics.update(role_metrics(role, found))
        metrics.update({f"timing_s/{name}": seconds for name, seconds in timing_raw.items()})

    def _log_rollout_data(self, batch: KVBatchMeta, timing_raw: dict, rollout_data_dir: str) -> None:
        """Each role's rows, decoded with its policy's tokenizer, into a folder of its own."""
        for role, policy in self.players.items():
            if not self._rows[role].keys:
                continue
            policy.global_steps = self.global_steps
            folder = str(Path(rollout_data_dir) / role)
            PPOTrainer._log_rollout_data(policy, self._rows[role], timing_raw, folder)

    def _log_episodes(self, episodes: list[dict[str, Any]]) -> None:
        """Append those of the episodes that the rollout chose to keep."""
        kept = [(e["episode"], e["reward_extra_info"]) for e in episodes if "episode" in e]
        self.episode_log.append(from_json(line).scored(info) for line, info in kept)

    def _shutdown_dump_executor(self) -> None:
        for policy in self.policies:
            PPOTrainer._shutdown_dump_executor(policy)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def _checkpoint_root(self) -> Path:
        return Path(self.config.trainer.default_local_dir).absolute()

    def _save_checkpoint(self) -> None:
        """Save both policies, the data position and the alarms' counts as one checkpoint."""
        self.begins("save")
        root, step = self._checkpoint_root, self.global_steps
        trained = tuple(policy.role for policy in self.policies if not policy.frozen)
        with store.writing(root, step) as folder:
            for policy in self.policies:
                if not policy.frozen:
                    path = str(folder / store.FOLDERS[policy.role])
                    policy.actor_rollout_wg.save_checkpoint(path, None, step, max_ckpt_to_keep=None)
            torch.save(self.train_dataloader.state_dict(), folder / "data.pt")
            dtypes = {policy.role: policy.served_dtype for policy in self.policies}
            models = {policy.role: policy.base_model for policy in self.policies}
            stage, alarms = self.schedule.index(step), self.alarms.state()
            state = store.SavedState(step, stage, trained, alarms, dtypes, models, began=self._began)
            store.finish(root, state, self.config.trainer.get("max_actor_ckpt_to_keep"))
        self._saved_step = self.global_steps
        self.checkpoint_callback.on_save(
            trainer=self, global_step=self.global_steps, checkpoint_dir=str(folder), async_save=False
        )

    def _resume(self) -> None:
        """Load both policies and the data position, if there is a checkpoint to resume from."""
        options = self.config.trainer
        folder = store.resume_folder(options.resume_mode, self._checkpoint_root, options.resume_from_path)
        self._began, self._taken_over = store.next_number(self._checkpoint_root), 0
        if folder is None:
            return
        state = store.read_state(folder)
        self._check_resumable(state)
        if folder.parent == self._checkpoint_root:  # the same run goes on
            self._began, self._taken_over = state.began, state.step
        self.global_steps = state.step
        self.alarms.restore(state.alarms)
        for policy in self.policies:
            if not policy.frozen and policy.role in state.trained:
                path = str(folder / store.FOLDERS[policy.role])
                policy.actor_rollout_wg.load_checkpoint(
                    local_path=path, del_local_after_load=options.del_local_ckpt_after_load
                )
        self.train_dataloader.load_state_dict(read_tensors(folder / "data.pt"))
        print(f"Resumed both policies and the data position from {folder} (step {state.step})")

    def _check_resumable(self, state: store.SavedState) -> None:
        """Refuse to resume where the run would silently become another one.

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
            raise ConfigError("rsim.schedule", str(self.config.rsim.schedule), fix)
