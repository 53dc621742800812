"""Plays episodes as a verl agent loop: :meth:`Dialogue.play` over the two models' servers.

Each episode yields two rows, told apart by the last part of verl's row key ``{uid}_{session}_{index}``: index 0 is the
planner's row, index 1 the reasoner's. The job's reward manager scores the reasoner's row alone;
:meth:`RsimAgentLoopWorker._compute_score` computes the planner's reward from that score.
"""

from __future__ import annotations

import math
from typing import Any, cast

import ray
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.profiler import simple_timer
from verl.utils.rollout_trace import rollout_trace_op
from verl.workers.rollout.llm_server import LLMServerClient

from verl_rsim.config.dialogue import build_dialogue
from verl_rsim.config.schema import WRONG_TRAINER_FIX, parse_config
from verl_rsim.core.episode import Episode, Stop
from verl_rsim.core.episode_record import EpisodeRecord, is_sampled, question_id, record_of, to_json, turn_record
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.watchdog.rollout_tracker import TRACKER, track_errors, track_wait
from verl_rsim.reward.planner_reward import EpisodeOutcome, PlannerScorer
from verl_rsim.training.rollout_context import RolloutContext, TwoPolicyClient
from verl_rsim.training.rollout_rows import (
    PLANNER_ROW,
    REASONER_ROW,
    RsimRow,
    make_row,
    without_empty_response,
)
from verl_rsim.training.vllm_sampler import ServerSampler
from verl_rsim.utils.errors import ConfigError

_VALIDATE = "rsim_validate"
"""Key under which the worker tells the agent loop, among the sampling parameters, that this is a validation."""


class RsimAgentLoop(AgentLoopBase):
    """Plays one episode and returns its two rows; verl's agent loop ``rsim``."""

    @property
    def context(self) -> RolloutContext:
        """Returns what the episodes of this worker share; verl calls it the server manager."""
        return cast(RolloutContext, self.server_manager)

    @rollout_trace_op
    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """Plays one episode.

        Args:
            sampling_params: the reasoner's, from verl (temperature, top_p, top_k ...).
            kwargs: the dataset row; ``raw_prompt`` is its chat.

        Returns:
            The planner's row and the reasoner's row.
        """
        validate = bool(sampling_params.pop(_VALIDATE, False))
        sampling_params = {key: value for key, value in sampling_params.items() if key != "logprobs"}
        planner, reasoner = self._samplers(sampling_params, validate, kwargs)
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            episode = await self.context.dialogue.play(list(kwargs["raw_prompt"]), planner, reasoner)
        rows: list[AgentLoopOutput] = self._rows(episode, planner, reasoner, timing["generate_sequences"], kwargs)
        record = self._record(episode, validate, reasoner.versions, kwargs)
        if record is not None:
            # As JSON, since TransferQueue would take a record apart.
            rows[REASONER_ROW].extra_fields["episode"] = to_json(record)
        return rows

    def _samplers(
        self, reasoner_sampling: dict[str, Any], validate: bool, row: dict[str, Any]
    ) -> tuple[ServerSampler, ServerSampler]:
        """Returns the samplers of planner and reasoner for one episode."""
        context, rsim = self.context, self.context.rsim
        seed = None
        if rsim.deterministic:
            seed = f"{rsim.seed}/{row.get('global_steps')}/{validate}/{row.get('session_id')}"
        planner_sampling = self._planner_sampling(reasoner_sampling, validate)
        return (
            ServerSampler(
                "planner", context.planner_client, planner_sampling, seed, context.dialogue.planner.vocabulary
            ),
            ServerSampler(
                "reasoner", context.reasoner_client, reasoner_sampling, seed, context.dialogue.reasoner.vocabulary
            ),
        )

    def _planner_sampling(self, reasoner_sampling: dict[str, Any], validate: bool) -> dict[str, Any]:
        """Returns the planner's sampling parameters: those of its own rollout block, in verl's format."""
        rollout = self.config.planner.rollout
        source = rollout.val_kwargs if validate else rollout
        return {**reasoner_sampling, **{key: source[key] for key in ("temperature", "top_p", "top_k")}}

    def _rows(
        self, episode: Episode, planner: ServerSampler, reasoner: ServerSampler, seconds: float, row: dict[str, Any]
    ) -> list[AgentLoopOutput]:
        """Returns the planner's row and the reasoner's row of an episode that took ``seconds``."""
        step = row["global_steps"]
        planner_row = without_empty_response(episode.planner_row(), self.config.planner.rollout.prompt_length)
        prompt_length = self.config.actor_rollout_ref.rollout.prompt_length
        reasoner_row = without_empty_response(episode.reasoner_row(), prompt_length)
        rows: list[AgentLoopOutput] = [
            make_row("planner", planner_row, episode, planner, seconds, step),
            make_row("reasoner", reasoner_row, episode, reasoner, seconds, step),
        ]
        # The metrics read the reasoner's row alone.
        rows[REASONER_ROW].extra_fields["rsim"]["seconds"] = {"planner": planner.seconds, "reasoner": reasoner.seconds}
        return rows

    def _record(
        self, episode: Episode, validate: bool, versions: list[int], row: dict[str, Any]
    ) -> EpisodeRecord | None:
        """Returns the record of an episode for the episode log, or None if the episode is not sampled for it."""
        settings, trainer = self.context.rsim.episode_log, self.config.trainer
        messages, step, sample = list(row["raw_prompt"]), int(row["global_steps"]), int(row["session_id"])
        truth = str((row.get("reward_model") or {}).get("ground_truth", ""))
        share = 1.0 if validate else settings.train_share
        if not settings.enabled or not is_sampled(share, question_id(messages, truth), step, sample):
            return None
        return record_of(
            map(turn_record, episode.turns),
            episode.stop,
            messages,
            kind="validation" if validate else "train",
            step=step,
            sample=sample,
            truth=truth,
            data_source=str(row.get("data_source", "")),
            uid=str(row.get("uid", "")),
            run=f"{trainer.project_name}/{trainer.experiment_name}",
            weights_version=max(versions, default=None),
        )


_VerlWorker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class  # type: ignore[attr-defined]
"""The class behind verl's Ray actor: Ray's wrapper cannot be subclassed."""


class RsimAgentLoopWorker(_VerlWorker):
    """Runs many episodes at once, like verl's agent loop worker, and computes the planner's reward."""

    llm_client: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        settings: Any = OmegaConf.to_container(self.config.rsim, resolve=True)
        rsim = parse_config(settings)
        client: TwoPolicyClient = self.llm_client
        # verl creates an agent loop for each episode and hands it the client: it hands over the shared context instead.
        self.llm_client = RolloutContext(client.planner_client, client, build_dialogue(self.config, rsim), rsim)
        self.planner_scorer = PlannerScorer(rsim.reward)

    async def generate_sequences(self, batch: TensorDict) -> None:
        """Plays the episodes of a batch; the counts of failures begin anew."""
        TRACKER.errors.clear()
        await super().generate_sequences(batch)

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        sampling_params = {**sampling_params, _VALIDATE: trajectory["validate"]}
        kwargs["agent_name"] = "rsim"  # a dataset made for other agent loops may name another one
        with track_errors("the episode"):
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict[str, Any]) -> None:
        """Scores the answer with verl's reward manager and the planner by that score.

        Both rewards go into ``reward_extra_info``. The reward manager gets the reasoner's row alone: verl pads several
        rows in a way that moves a shorter row's mask off its response, and its managers then read a cut answer.
        """
        reasoner, planner = outputs[REASONER_ROW], outputs[PLANNER_ROW]
        with track_wait("the reward"):
            await super()._compute_score([reasoner], kwargs)
            info = dict(reasoner.extra_fields.get("reward_extra_info") or {})
            reward = _finite("this", reasoner.reward_score)
            info["acc"] = _finite("its acc", info.get("acc", reward))
        score = self.planner_scorer.score(_outcome(reasoner.extra_fields["rsim"], info["acc"]))
        assert isinstance(planner, RsimRow)
        planner.turn_rewards = list(score.turns)
        info |= {"reasoner_reward": reward, "planner_reward": score.total}
        info |= {f"planner_{name}": value for name, value in score.parts.items()}
        reasoner.extra_fields["reward_extra_info"] = info


def _finite(name: str, reward: Any) -> float:
    """Returns a reward as a float.

    Raises:
        ValueError: it is not finite; an update with it would make every weight NaN.
    """
    value = float(reward)
    if not math.isfinite(value):
        raise ValueError(f"a reward must be a finite number, and {name} is {value}")
    return value


def _outcome(summary: dict[str, Any], accuracy: float) -> EpisodeOutcome:
    """Returns what the planner's reward depends on, from an episode's summary and the accuracy of its answer."""
    return EpisodeOutcome(
        accuracy=accuracy,
        strategies=tuple(STRATEGIES[index].name for index in summary["strategies"]),
        stop=Stop(summary["stop"]),
        unparsed=tuple(summary["unparsed"]),
        step_tokens=tuple(summary["step_tokens"]),
    )


class RsimAgentLoopManager(AgentLoopManagerTQ):
    """Distributes episodes over :class:`RsimAgentLoopWorker` workers.

    Raises:
        ConfigError: a trainer of one policy asks for it.
    """

    def __init__(self, config: DictConfig, llm_client: LLMServerClient, *args: Any, **kwargs: Any):
        # An entry point of the user's own may not have called verl's check of the configuration.
        if not isinstance(llm_client, TwoPolicyClient):
            raise ConfigError("trainer.v1.trainer_mode", config.trainer.v1.trainer_mode, WRONG_TRAINER_FIX)
        # verl passes the job's configuration; the client has the one that the trainer prepared from it.
        super().__init__(llm_client.config, llm_client, *args, **kwargs)
        self.agent_loop_workers_class = ray.remote(RsimAgentLoopWorker)
