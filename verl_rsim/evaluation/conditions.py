"""Plays the conditions of an evaluation: the planner under test and its controls, all with the same token budget.

========================  ==========================================================================================
``alone``                 the reasoner alone, without strategies
``self_strategies``       the reasoner alone, asked in its prompt to choose among the strategies itself
``random``                strategies drawn at random
``fixed:NAME``            the same strategy at every turn; ``fixed`` names all nine
``base_planner``          a planner before training
``planner``               the planner under test
========================  ==========================================================================================
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from verl_rsim.core.controls import ALONE, FIXED, RANDOM, SELF_STRATEGIES
from verl_rsim.core.episode import Episode, Generate, Generation, Request, StepEnd, Stop
from verl_rsim.core.episode_record import TurnRecord, mean_log_prob, turn_record
from verl_rsim.core.prompts import Codec, Message
from verl_rsim.core.rules import Rules
from verl_rsim.core.strategies import LABELS, STRATEGIES, strategy_index
from verl_rsim.evaluation.dataset import EvaluationQuestion
from verl_rsim.evaluation.engines.base import EngineSampler, Sampling
from verl_rsim.evaluation.models import Planner, Reasoner

SELF_PROMPT = """

Work step by step. Before each step choose, of these strategies, the one that helps most, and name it:
{menu}"""


@dataclass(frozen=True, slots=True)
class UnscoredEpisode:
    """Holds an episode before its answer is scored.

    If the reasoner plays alone, its whole answer is one turn without a strategy.

    Attributes:
        text: text to score: instructions and steps.
        reasoner_text: text that the reasoner wrote itself, without instructions.
        stop: reason for which the episode ended.
        turns: the turns, as the episode log has them.
        planner_tokens, planner_read, planner_seconds, reasoner_tokens, reasoner_read, reasoner_seconds: see
            :class:`verl_rsim.evaluation.records.Record`.
    """

    text: str
    reasoner_text: str
    stop: Stop
    turns: tuple[TurnRecord, ...]
    planner_tokens: int
    planner_read: int
    planner_seconds: float
    reasoner_tokens: int
    reasoner_read: int
    reasoner_seconds: float


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Holds both models' sampling parameters and the seed of an evaluation."""

    reasoner: Sampling = field(default_factory=Sampling)
    planner: Sampling = field(default_factory=Sampling)
    seed: int = 0


class ConditionPlayer:
    """Plays one question under any condition of an evaluation.

    Args:
        reasoner: the reasoner of all conditions.
        planners: planners by the name of their condition.
        controls: names out of :data:`verl_rsim.core.controls.CONTROLS`.
        rules: bounds of an episode.
        sampling: sampling parameters and seed.

    Raises:
        ConfigError: a context is too short for the rules, or a planner's tokenizer has no single token for a label.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        planners: dict[str, Planner],
        controls: Sequence[str],
        rules: Rules,
        sampling: SamplingSettings,
    ):
        self.reasoner, self.planners, self.rules, self.sampling = reasoner, planners, rules, sampling
        self.conditions = (*controls, *planners)
        context = reasoner.engine.context
        # Scripted planners return label ids, whatever decoding the planner under test was trained with.
        constrained = dataclasses.replace(rules, planner_decoding="constrained")
        self._scripted_dialogue = constrained.dialogue(LABEL_CODEC, UNBOUNDED_CONTEXT, reasoner.codec, context)
        self._dialogues = {
            name: rules.dialogue(planner.codec, planner.engine.context, reasoner.codec, context)
            for name, planner in planners.items()
        }

    async def start(self, conditions: Collection[str]) -> None:
        """Loads the models of these conditions, so that the first episode does not wait for them."""
        await self.reasoner.engine.start()
        for name in conditions:
            if name in self.planners:
                await self.planners[name].engine.start()

    async def play(self, condition: str, question: EvaluationQuestion, sample: int) -> UnscoredEpisode:
        """Plays one question under a condition.

        Args:
            condition: one of :attr:`conditions`.
            question: the question.
            sample: index of the sample; part of the seed.

        Raises:
            EngineError: a model failed.
        """
        seed = f"{self.sampling.seed}/{question.id}/{sample}"
        reasoner = self.reasoner.sampler(self.sampling.reasoner, seed)
        if condition == ALONE:
            return await self._play_alone(question.messages, reasoner)
        if condition == SELF_STRATEGIES:
            return await self._play_alone(with_strategy_menu(question.messages), reasoner)
        if condition in self.planners:
            planner = self.planners[condition].sampler(self.sampling.planner, seed)
            episode = await self._dialogues[condition].play(question.messages, planner, reasoner)
            return self._unscored(episode, reasoner, planner)
        strategy = condition.removeprefix(f"{FIXED}:")
        script = random_planner(seed) if condition == RANDOM else fixed_planner(strategy)
        episode = await self._scripted_dialogue.play(question.messages, script, reasoner)
        return self._unscored(episode, reasoner, None)

    async def _play_alone(self, messages: Sequence[Message], reasoner: EngineSampler) -> UnscoredEpisode:
        codec = self.reasoner.codec
        prompt = codec.chat(messages)
        text, stop = "", Stop.PROMPT_TOO_LONG
        turns: tuple[TurnRecord, ...] = ()
        if len(prompt) <= self._scripted_dialogue.limits.reasoner_prompt:
            answer = await reasoner(Request(prompt, self.rules.budget))
            text = codec.decode(answer.token_ids)
            stop = Stop.REASONER_EOS if answer.token_ids[-1] in codec.eos_ids else Stop.BUDGET
            end = StepEnd.EOS if stop is Stop.REASONER_EOS else StepEnd.LENGTH
            turns = (TurnRecord("", text, len(answer.token_ids), end.value, log_prob_mean=mean_log_prob(answer)),)
        return UnscoredEpisode(
            text=text,
            reasoner_text=text,
            stop=stop,
            turns=turns,
            planner_tokens=0,
            planner_read=0,
            planner_seconds=0.0,
            reasoner_tokens=reasoner.tokens,
            reasoner_read=len(prompt),
            reasoner_seconds=reasoner.seconds,
        )

    def _unscored(self, episode: Episode, reasoner: EngineSampler, planner: EngineSampler | None) -> UnscoredEpisode:
        row = episode.reasoner_row()
        observed = sum(len(turn.observation_ids) for turn in episode.turns)
        return UnscoredEpisode(
            text=self.reasoner.codec.decode(row.response_ids),  # the same text that training's reward manager scores
            reasoner_text="\n\n".join(turn.step_text.strip() for turn in episode.turns),
            stop=episode.stop,
            turns=tuple(map(turn_record, episode.turns)),
            planner_tokens=planner.tokens if planner else 0,
            planner_read=len(episode.planner_prompt_ids) + observed if planner else 0,
            planner_seconds=planner.seconds if planner else 0.0,
            reasoner_tokens=reasoner.tokens,
            reasoner_read=len(row.prompt_ids) + row.mask.count(0),
            reasoner_seconds=reasoner.seconds,
        )


def with_strategy_menu(messages: Sequence[Message]) -> list[Message]:
    """Returns the chat with the list of strategies appended to its last message."""
    menu = "\n".join(f"- {strategy.title}: {strategy.description}" for strategy in STRATEGIES)
    *earlier, last = messages
    return [*earlier, {**last, "content": last["content"] + SELF_PROMPT.format(menu=menu)}]


def random_planner(seed: str) -> Generate:
    """Returns a planner that draws one of the allowed labels uniformly."""
    rng = random.Random(f"{seed}/random planner")

    async def choose(request: Request) -> Generation:
        labels = request.allowed_ids or ()
        return Generation((rng.choice(labels),), (-math.log(len(labels)),))

    return choose


def fixed_planner(strategy: str) -> Generate:
    """Returns a planner that always chooses the same strategy."""
    index = strategy_index(strategy)

    async def choose(request: Request) -> Generation:
        return Generation(((request.allowed_ids or ())[index],), (0.0,))

    return choose


class _LabelTokenizer:
    """Tokenizes for planners without a model: one token for each strategy label, none for any other text."""

    unk_token_id = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [LABELS.index(text)] if text and text in LABELS else []

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        return "".join(LABELS[i] for i in ids)

    def apply_chat_template(self, messages: object, **_: object) -> str:
        return ""


LABEL_CODEC = Codec(_LabelTokenizer(), frozenset())
"""Codec of planners without a model."""
UNBOUNDED_CONTEXT = 1 << 30
