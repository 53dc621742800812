"""Who answers: the planner under test, and the controls it is compared with, all with the same allowance of tokens.

========================  ==========================================================================================
``alone``                 the reasoner, without any strategy
``self_strategies``       the reasoner alone, asked to choose among the strategies itself: they stand in its prompt
``random``                strategies drawn at random
``fixed:NAME``            the same strategy at every turn; ``fixed`` stands for all nine
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
from verl_rsim.core.dialogue import Episode, Generate, Generation, Request, StepEnd, Stop
from verl_rsim.core.episode_record import TurnRecord, mean_log_prob, turn_record
from verl_rsim.core.prompts import Codec, Message
from verl_rsim.core.strategies import LABELS, STRATEGIES, strategy_index
from verl_rsim.evaluation.dataset import EvaluationQuestion
from verl_rsim.evaluation.engines.base import EngineSampler, Sampling
from verl_rsim.evaluation.models import Planner, Reasoner
from verl_rsim.evaluation.rules import Rules

SELF_PROMPT = """

Work step by step. Before each step choose, of these strategies, the one that helps most, and name it:
{menu}"""


@dataclass(frozen=True, slots=True)
class Played:
    """An answer before it is scored; the counts are those of :class:`verl_rsim.evaluation.records.Record`.

    Without a planner the whole answer is one turn without a strategy.
    """

    text: str
    written: str
    stop: Stop
    turns: tuple[TurnRecord, ...]
    planner_tokens: int
    planner_read: int
    planner_seconds: float
    reasoner_tokens: int
    reasoner_read: int
    reasoner_seconds: float


@dataclass(frozen=True, slots=True)
class Draw:
    """How tokens are drawn in an evaluation: each model's sampling, and the seed of all."""

    reasoner: Sampling = field(default_factory=Sampling)
    planner: Sampling = field(default_factory=Sampling)
    seed: int = 0


class Table:
    """A reasoner, the planners that sit before it, and the rules; plays any condition on any question.

    Args:
        planners: the conditions that a model plays, by name.
        controls: names out of :data:`CONTROLS`.

    Raises:
        ConfigError: a model takes too few tokens for the rules, or a planner has no strategy labels.
    """

    def __init__(
        self, reasoner: Reasoner, planners: dict[str, Planner], controls: Sequence[str], rules: Rules, draw: Draw
    ):
        self.reasoner, self.planners, self.rules, self.draw = reasoner, planners, rules, draw
        self.conditions = (*controls, *planners)
        context = reasoner.engine.context
        scripted = dataclasses.replace(rules, planner_decoding="constrained")
        self._scripted = scripted.dialogue(NO_PLANNER, UNBOUNDED, reasoner.codec, context)
        self._dialogues = {
            name: rules.dialogue(planner.codec, planner.engine.context, reasoner.codec, context)
            for name, planner in planners.items()
        }

    async def start(self, conditions: Collection[str]) -> None:
        """Load the models of these conditions, which their first answers would do otherwise."""
        for player in (self.reasoner, *(self.planners[name] for name in conditions if name in self.planners)):
            await player.engine.start()

    async def play(self, condition: str, question: EvaluationQuestion, sample: int) -> Played:
        """One answer.

        Raises:
            EngineError: a model failed.
        """
        seed = f"{self.draw.seed}/{question.id}/{sample}"
        reasoner = self.reasoner.sampler(self.draw.reasoner, seed)
        if condition in (ALONE, SELF_STRATEGIES):
            messages = with_menu(question.messages) if condition == SELF_STRATEGIES else question.messages
            return await self._alone(messages, reasoner)
        if condition in self.planners:
            chooser = self.planners[condition].sampler(self.draw.planner, seed)
            episode = await self._dialogues[condition].play(question.messages, chooser, reasoner)
            return self._played(episode, reasoner, chooser)
        script = random_choice(seed) if condition == RANDOM else fixed_choice(condition.removeprefix(f"{FIXED}:"))
        episode = await self._scripted.play(question.messages, script, reasoner)
        return self._played(episode, reasoner, None)

    async def _alone(self, messages: Sequence[Message], reasoner: EngineSampler) -> Played:
        codec = self.reasoner.codec
        prompt = codec.chat(messages)
        text, stop = "", Stop.PROMPT_TOO_LONG
        turns: tuple[TurnRecord, ...] = ()
        if len(prompt) <= self._scripted.limits.reasoner_prompt:
            answer = await reasoner(Request(prompt, self.rules.budget))
            text = codec.decode(answer.token_ids)
            stop = Stop.REASONER_EOS if answer.token_ids[-1] in codec.eos_ids else Stop.BUDGET
            ended = StepEnd.EOS if stop is Stop.REASONER_EOS else StepEnd.LENGTH
            mean = mean_log_prob(answer)
            turns = (TurnRecord("", text, len(answer.token_ids), ended.value, log_prob_mean=mean),)
        return Played(text, text, stop, turns, 0, 0, 0.0, reasoner.tokens, len(prompt), reasoner.seconds)

    def _played(self, episode: Episode, reasoner: EngineSampler, planner: EngineSampler | None) -> Played:
        row, observed = episode.reasoner_row(), sum(len(turn.observation_ids) for turn in episode.turns)
        return Played(
            text=self.reasoner.codec.decode(row.response_ids),  # what training's reward manager scores
            written="\n\n".join(turn.step_text.strip() for turn in episode.turns),
            stop=episode.stop,
            turns=tuple(map(turn_record, episode.turns)),
            planner_tokens=planner.tokens if planner else 0,
            planner_read=len(episode.planner_prompt_ids) + observed if planner else 0,
            planner_seconds=planner.seconds if planner else 0.0,
            reasoner_tokens=reasoner.tokens,
            reasoner_read=len(row.prompt_ids) + row.mask.count(0),
            reasoner_seconds=reasoner.seconds,
        )


def with_menu(messages: Sequence[Message]) -> list[Message]:
    """The question with the strategies listed behind it."""
    menu = "\n".join(f"- {strategy.title}: {strategy.description}" for strategy in STRATEGIES)
    *earlier, last = messages
    return [*earlier, {**last, "content": last["content"] + SELF_PROMPT.format(menu=menu)}]


def random_choice(seed: str) -> Generate:
    """A planner that draws one of the allowed labels, each as likely as the others."""
    source = random.Random(f"{seed}/random planner")

    async def choose(request: Request) -> Generation:
        labels = request.allowed_ids or ()
        return Generation((source.choice(labels),), (-math.log(len(labels)),))

    return choose


def fixed_choice(strategy: str) -> Generate:
    """A planner that always chooses the same strategy."""
    index = strategy_index(strategy)

    async def choose(request: Request) -> Generation:
        return Generation(((request.allowed_ids or ())[index],), (0.0,))

    return choose


class _LabelsOnly:
    """The tokenizer of a planner that reads nothing: a token for each label, none for any other text."""

    unk_token_id = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [LABELS.index(text)] if text and text in LABELS else []

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        return "".join(LABELS[i] for i in ids)

    def apply_chat_template(self, messages: object, **_: object) -> str:
        return ""


NO_PLANNER = Codec(_LabelsOnly(), frozenset())
UNBOUNDED = 1 << 30
