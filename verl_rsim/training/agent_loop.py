"""The alternating rollout as a verl agent loop: :class:`Dialogue.play` over two verl server clients.

Each episode yields two rows, told apart by the last part of verl's row key ``{uid}_{session}_{index}``: index 0 is
the planner's row, index 1 the reasoner's. verl scores the last row with the user's reward manager; the planner's reward
is computed from that score here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ray
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.profiler import simple_timer
from verl.utils.rollout_trace import rollout_trace_op

from verl_rsim.config.dialogue import build_dialogue
from verl_rsim.config.schema import WRONG_TRAINER_FIX, parse_config
from verl_rsim.core.dialogue import Episode, Stop, TokenRow
from verl_rsim.core.episode_record import EpisodeRecord, is_sampled, question_id, record_of, to_json, turn_record
from verl_rsim.core.strategies import STRATEGIES, count_by_keyword
from verl_rsim.monitoring.watchdog.rollout_tracker import ACCOUNT, blaming, waiting_for
from verl_rsim.reward.planner_reward import EpisodeOutcome, PlannerScorer
from verl_rsim.training.vllm_sampler import ServerSampler
from verl_rsim.utils.errors import ConfigError

PLANNER_ROW, REASONER_ROW = 0, 1
"""Index of each role's row in the key ``{uid}_{session}_{index}``."""

_VALIDATE = "rsim_validate"


def role_of(key: str) -> str:
    """The role of a row, from its key.

    Raises:
        ValueError: the key does not end with 0 or 1.
    """
    return ("planner", "reasoner")[("0", "1").index(key.rsplit("_", 1)[-1])]


class RsimRow(AgentLoopOutput):
    """A row that keeps the reward of its own role, where verl copies the last row's to all.

    Attributes:
        turn_rewards: what each turn brought; None: all at the end.
    """

    turn_rewards: list[float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row's fields for TransferQueue, with this role's reward at its last token, or each turn's at its own."""
        reward = self.extra_fields.get("reward_extra_info", {}).get(f"{self.extra_fields['role']}_reward")
        if reward is not None:
            self.reward_score = reward
        fields = super().as_dict()
        rewards = fields.pop("turn_rewards", None)
        if rewards and len(ends := turn_ends(self.response_mask)) == len(rewards):
            fields["rm_scores"][ends] = torch.tensor(rewards)
        return fields


def turn_ends(mask: Sequence[int]) -> list[int]:
    """Positions of the last generated token of each turn."""
    return [i for i, (here, after) in enumerate(zip(mask, (*mask[1:], 0), strict=True)) if here and not after]


class RsimAgentLoop(AgentLoopBase):
    """verl's agent loop ``rsim``: one episode, two rows."""

    @rollout_trace_op
    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """Play one episode.

        Args:
            sampling_params: the reasoner's, from verl (temperature, top_p, top_k ...).
            kwargs: the dataset row; ``raw_prompt`` is its chat.

        Returns:
            The planner's row and the reasoner's row.
        """
        dialogue, rsim = self.server_manager.dialogue, self.server_manager.rsim
        validate = bool(sampling_params.pop(_VALIDATE, False))
        sampling_params = {key: value for key, value in sampling_params.items() if key != "logprobs"}
        seed = None
        if rsim.deterministic:
            seed = f"{rsim.seed}/{kwargs.get('global_steps')}/{validate}/{kwargs.get('session_id')}"
        servers, planners = self.server_manager, self._planner_sampling(sampling_params, validate)
        planner = ServerSampler("planner", servers.planner, planners, seed, dialogue.planner.vocabulary)
        reasoner = ServerSampler("reasoner", servers, sampling_params, seed, dialogue.reasoner.vocabulary)
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            episode = await dialogue.play(list(kwargs["raw_prompt"]), planner, reasoner)
        rows = [
            self._output("planner", episode, planner, timing["generate_sequences"], kwargs["global_steps"]),
            self._output("reasoner", episode, reasoner, timing["generate_sequences"], kwargs["global_steps"]),
        ]
        seconds = {"planner": planner.seconds, "reasoner": reasoner.seconds}
        rows[REASONER_ROW].extra_fields["rsim"]["seconds"] = seconds  # the metrics read this row alone
        if record := self._record(episode, validate, reasoner.versions, kwargs):
            rows[REASONER_ROW].extra_fields["episode"] = to_json(record)  # TransferQueue takes records apart
        return rows

    def _record(
        self, episode: Episode, validate: bool, versions: list[int], asked: dict[str, Any]
    ) -> EpisodeRecord | None:
        """What the episode log keeps of the episode; None if it is not sampled."""
        settings, trainer = self.server_manager.rsim.episode_log, self.config.trainer
        messages, step, sample = list(asked["raw_prompt"]), int(asked["global_steps"]), int(asked["session_id"])
        truth = str((asked.get("reward_model") or {}).get("ground_truth", ""))
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
            data_source=str(asked.get("data_source", "")),
            uid=str(asked.get("uid", "")),
            run=f"{trainer.project_name}/{trainer.experiment_name}",
            weights_version=max(versions, default=None),
        )

    def _planner_sampling(self, reasoner_sampling: dict[str, Any], validate: bool) -> dict[str, Any]:
        """The planner's sampling parameters: those of its own rollout block, in verl's format."""
        rollout = self.config.planner.rollout
        source = rollout.val_kwargs if validate else rollout
        return {**reasoner_sampling, **{key: source[key] for key in ("temperature", "top_p", "top_k")}}

    def _output(self, role: str, episode: Episode, sampler: ServerSampler, seconds: float, step: int) -> RsimRow:
        """The row of ``role`` in verl's format; ``step`` is the training step that asked for it."""
        row = episode.planner_row() if role == "planner" else episode.reasoner_row()
        block = self.config.planner if role == "planner" else self.config.actor_rollout_ref
        if not row.response_ids:  # nothing was generated: one masked token, since verl's rows hold at least one
            row = TokenRow(row.prompt_ids[-block.rollout.prompt_length :], row.prompt_ids[-1:], (0,), (0.0,))
        return RsimRow(
            prompt_ids=list(row.prompt_ids),
            response_ids=list(row.response_ids),
            response_mask=list(row.mask),
            response_logprobs=list(row.log_probs),
            num_turns=len(episode.turns),
            metrics=AgentLoopMetrics(generate_sequences=seconds, num_preempted=sampler.preempted),
            extra_fields={
                "role": role,
                "turn_scores": [],
                "tool_rewards": [],
                "rsim": summary(episode),
                "min_global_steps": min(sampler.versions, default=step - 1),
                "max_global_steps": max(sampler.versions, default=step - 1),
            },
        )


def summary(episode: Episode) -> dict[str, Any]:
    """What the metrics need of an episode, in plain types."""
    return {
        "strategies": [turn.strategy for turn in episode.turns],
        "unparsed": [position for position, turn in enumerate(episode.turns) if not turn.parsed],
        "stop": episode.stop.value,
        "step_tokens": [len(turn.step.token_ids) for turn in episode.turns],
        "step_ends": [turn.step_end.value for turn in episode.turns],
        "step_keywords": [_strategies_shown(turn.step_text) for turn in episode.turns],
        "choice_tokens": sum(len(turn.choice.token_ids) for turn in episode.turns),
    }


def _strategies_shown(text: str) -> list[int]:
    """The strategies whose key words stand in a step."""
    return [index for index, count in enumerate(count_by_keyword(text)) if count]


class RsimAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's agent loop worker, plus the planner's reward and the word whether this is validation."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # What the episodes share travels on the client: verl makes a new agent loop for each of them.
        self.llm_client.rsim = parse_config(OmegaConf.to_container(self.config.rsim, resolve=True))
        self.llm_client.dialogue = build_dialogue(self.config, self.llm_client.rsim)
        self.planner_scorer = PlannerScorer(self.llm_client.rsim.reward)

    async def generate_sequences(self, batch: TensorDict) -> None:
        """As verl's; the account of failures begins anew."""
        ACCOUNT.failed.clear()
        await super().generate_sequences(batch)

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any):
        sampling_params = {**sampling_params, _VALIDATE: trajectory["validate"]}
        kwargs["agent_name"] = "rsim"  # a dataset made for other agent loops may name another one
        with blaming("the episode"):
            return await super()._run_agent_loop(sampling_params, trajectory, **kwargs)

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict) -> None:
        """Let verl score the answer, then score the planner by it; both go into ``reward_extra_info``.

        The reward manager gets the reasoner's row alone: verl pads several rows in a way that moves a shorter row's
        mask off its response, and its managers then read an answer cut short.
        """
        final = outputs[REASONER_ROW]
        with waiting_for("the reward"):
            await super()._compute_score([final], kwargs)
            info = dict(final.extra_fields.get("reward_extra_info") or {})
            info["acc"] = float(info.get("acc", final.reward_score))
            for what, value in (("this", final.reward_score), ("its acc", info["acc"])):
                if not math.isfinite(value):
                    raise ValueError(f"a reward must be a finite number, and {what} is {value}")
        episode = final.extra_fields["rsim"]
        score = self.planner_scorer.score(
            EpisodeOutcome(
                accuracy=info["acc"],
                strategies=tuple(STRATEGIES[index].name for index in episode["strategies"]),
                stop=Stop(episode["stop"]),
                unparsed=tuple(episode["unparsed"]),
                step_tokens=tuple(episode["step_tokens"]),
            )
        )
        outputs[PLANNER_ROW].turn_rewards = list(score.turns)
        info |= {"reasoner_reward": float(final.reward_score), "planner_reward": score.total}
        info |= {f"planner_{name}": value for name, value in score.parts.items()}
        final.extra_fields["reward_extra_info"] = info


class RsimAgentLoopManager(AgentLoopManagerTQ):
    """verl's agent loop manager with :class:`RsimAgentLoopWorker` workers.

    Raises:
        ConfigError: a trainer of one policy asks for it.
    """

    def __init__(self, config: DictConfig, llm_client: Any, *args: Any, **kwargs: Any):
        if not hasattr(llm_client, "planner"):  # an entry point of its own, that has not asked verl to check
            raise ConfigError("trainer.v1.trainer_mode", config.trainer.v1.trainer_mode, WRONG_TRAINER_FIX)
        super().__init__(config, llm_client, *args, **kwargs)
        self.agent_loop_workers_class = ray.remote(RsimAgentLoopWorker)
