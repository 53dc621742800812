"""One episode between planner and reasoner, token by token, and the two training rows it becomes.

Pure Python: the models are two async callables. The same :meth:`Dialogue.play` serves training, validation,
evaluation and serving.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from verl_rsim.core.prompts import OBSERVATION, Codec, Message, planner_messages
from verl_rsim.core.strategies import CONTINUATION, STRATEGIES, TERMINATION, Strategy, parse_choice, strategy_index


class Stop(str, enum.Enum):
    """Why an episode ended."""

    TERMINATION = "termination"  # the planner chose it; the reasoner then wrote its final answer
    REASONER_EOS = "reasoner_eos"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"  # no room for another turn in one of the two rows, or the reasoner wrote all it may
    PROMPT_TOO_LONG = "prompt_too_long"  # no room for the first turn


class StepEnd(str, enum.Enum):
    """Why a step ended."""

    DELIMITER = "delimiter"
    LENGTH = "length"
    EOS = "eos"


class Injection(str, enum.Enum):
    """Where the strategy's instruction goes."""

    INLINE = "inline"  # into the reasoner's own turn; its whole row stays one assistant message
    CHAT = "chat"  # as a user turn before each step


@dataclass(frozen=True, slots=True)
class Request:
    """What one call of a model may produce.

    Attributes:
        prompt_ids: everything before the generated tokens.
        max_tokens: at least 1.
        stop: strings that end the generation; the tokens that complete one are kept.
        allowed_ids: the only tokens that may be sampled, None for all; log-probs are then renormalised over them.
        turn: position in the episode, from 0.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    allowed_ids: tuple[int, ...] | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """Sampled tokens, the end-of-sequence token included, and their log-probs under the sampling distribution."""

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]

    def __post_init__(self):
        if len(self.token_ids) != len(self.log_probs):
            raise ValueError(f"{len(self.token_ids)} tokens but {len(self.log_probs)} log-probs")
        if not self.token_ids:
            raise ValueError("a generation holds at least one token")


Generate = Callable[[Request], Awaitable[Generation]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an episode, in turns and tokens.

    Attributes:
        max_turns: turns, the final answer's included.
        max_step_tokens: tokens of a step.
        max_answer_tokens: tokens of the answer after *termination*.
        planner_prompt, planner_response: token budget of the planner's row.
        reasoner_prompt, reasoner_response: token budget of the reasoner's row.
        max_choice_tokens: tokens a free-form planner may write.
        max_written: tokens the reasoner may write in all; None: what the other bounds allow.
    """

    max_turns: int
    max_step_tokens: int
    max_answer_tokens: int
    planner_prompt: int
    planner_response: int
    reasoner_prompt: int
    reasoner_response: int
    max_choice_tokens: int = 8
    max_written: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A strategy and the step written under it.

    Attributes:
        observation_ids: planner tokens that show the previous step (empty in the first turn); not generated.
        choice: the planner's tokens.
        strategy: index into :data:`verl_rsim.core.strategies.STRATEGIES`.
        parsed: False when a free-form planner wrote no strategy and *continuation* was taken.
        injected_ids: reasoner tokens that carry the instruction; not generated.
        step: the reasoner's tokens.
        step_text: the step as text.
        step_end: why it ended.
    """

    observation_ids: tuple[int, ...]
    choice: Generation
    strategy: int
    parsed: bool
    injected_ids: tuple[int, ...]
    step: Generation
    step_text: str
    step_end: StepEnd


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A training row: what was given, and a response of generated (mask 1) and given (mask 0) tokens.

    ``log_probs`` is 0.0 where the mask is 0. The last response token is a generated one.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    mask: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """A finished episode."""

    planner_prompt_ids: tuple[int, ...]
    reasoner_prompt_ids: tuple[int, ...]
    turns: tuple[Turn, ...]
    stop: Stop

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """The strategies in the order they were used."""
        return tuple(STRATEGIES[turn.strategy] for turn in self.turns)

    def planner_row(self) -> TokenRow:
        """The planner's tokens: each choice (mask 1) after the observation of the step before it (mask 0)."""
        return _row(self.planner_prompt_ids, [(turn.observation_ids, turn.choice) for turn in self.turns])

    def reasoner_row(self) -> TokenRow:
        """The reasoner's tokens: each step (mask 1) after the instruction it was written under (mask 0)."""
        return _row(self.reasoner_prompt_ids, [(turn.injected_ids, turn.step) for turn in self.turns])


class Observer:
    """Is told how an episode goes on; does nothing by itself. What it raises ends the episode."""

    def chose(self, strategy: int) -> None:
        """The planner chose; the reasoner has not written yet."""

    def wrote(self, turn: Turn) -> None:
        """A step is finished."""


def _row(prompt_ids: tuple[int, ...], parts: Sequence[tuple[tuple[int, ...], Generation]]) -> TokenRow:
    ids: list[int] = []
    mask: list[int] = []
    log_probs: list[float] = []
    for given, generated in parts:
        ids += [*given, *generated.token_ids]
        mask += [0] * len(given) + [1] * len(generated.token_ids)
        log_probs += [0.0] * len(given) + [*generated.log_probs]
    return TokenRow(prompt_ids, tuple(ids), tuple(mask), tuple(log_probs))


@dataclass(frozen=True)
class Dialogue:
    """The rules of an episode for a pair of models; made once, played many times.

    Attributes:
        planner, reasoner: the two models' codecs.
        limits: bounds.
        injection: where instructions go.
        constrained: the planner samples among the nine labels; otherwise it writes freely.
        delimiter: the string that ends a step.
    """

    planner: Codec
    reasoner: Codec
    limits: Limits
    injection: Injection = Injection.INLINE
    constrained: bool = True
    delimiter: str = "\n\n"
    _encoded: dict[tuple[int, StepEnd | None], tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def label_ids(self) -> tuple[int, ...]:
        """The planner's token for each strategy."""
        return self.planner.label_ids()

    @cached_property
    def _user_turn(self) -> tuple[str, str]:
        return self.reasoner.user_turn()

    def injected_ids(self, strategy: int, previous: StepEnd | None) -> tuple[int, ...]:
        """Reasoner tokens that carry ``strategy`` after a step that ended with ``previous`` (None: the first turn)."""
        key = (strategy, previous)
        if key not in self._encoded:
            if self.injection is Injection.INLINE:
                lead = "" if previous in (None, StepEnd.DELIMITER) else "\n\n"
                text = f"{lead}{STRATEGIES[strategy].instruction}\n"
            elif previous is None:  # completes the question, which the prompt left open
                text = f"\n\n{STRATEGIES[strategy].request}{self._user_turn[1]}"
            else:
                before, after = self._user_turn
                if previous is StepEnd.EOS:  # the step brought its own end-of-turn token
                    ends = [self.reasoner.tokenizer.decode([i]) for i in self.reasoner.eos_ids]
                    before = next((before.removeprefix(end) for end in ends if end and before.startswith(end)), before)
                text = f"{before}{STRATEGIES[strategy].request}{after}"
            self._encoded[key] = self.reasoner.encode(text)
        return self._encoded[key]

    def longest_injection(self) -> int:
        """Tokens of the longest instruction after any step."""
        return max(len(self.injected_ids(i, end)) for i in range(len(STRATEGIES)) for end in (None, *StepEnd))

    def prompts(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids that planner and reasoner read before the first turn; ``messages``: see :meth:`play`."""
        open_end = self.injection is Injection.CHAT
        return self.planner.chat(planner_messages(messages)), self.reasoner.chat(messages, open_end=open_end)

    def step_end(self, step: Generation, request: Request, text: str) -> StepEnd:
        """Why a step ended, read off its tokens and what was asked for."""
        if step.token_ids[-1] in self.reasoner.eos_ids:
            return StepEnd.EOS
        if len(step.token_ids) >= request.max_tokens and not any(stop in text for stop in request.stop):
            return StepEnd.LENGTH
        return StepEnd.DELIMITER

    async def play(
        self,
        messages: Sequence[Message],
        planner: Generate,
        reasoner: Generate,
        observer: Observer = Observer(),  # noqa: B008 (it has no state)
    ) -> Episode:
        """Let the two models work on one question.

        Args:
            messages: the question as a chat, ending with a user message.
            planner: samples the planner; called with its whole context each turn.
            reasoner: samples the reasoner, likewise.
            observer: is told each turn as it happens.

        Returns:
            The episode. Errors of the two callables propagate.
        """
        limits = self.limits
        planner_prompt, reasoner_prompt = planner_ids, reasoner_ids = self.prompts(messages)
        turns: list[Turn] = []
        written = 0

        def end(stop: Stop) -> Episode:
            return Episode(planner_prompt, reasoner_prompt, tuple(turns), stop)

        if len(planner_prompt) > limits.planner_prompt or len(reasoner_prompt) > limits.reasoner_prompt:
            return end(Stop.PROMPT_TOO_LONG)
        choice_tokens = 1 if self.constrained else limits.max_choice_tokens
        while len(turns) < limits.max_turns:
            last = turns[-1] if turns else None
            observation = self.planner.encode(OBSERVATION.format(step=last.step_text.strip())) if last else ()
            planner_room = limits.planner_response - (len(planner_ids) - len(planner_prompt)) - len(observation)
            reasoner_room = limits.reasoner_response - (len(reasoner_ids) - len(reasoner_prompt))
            left = reasoner_room if limits.max_written is None else limits.max_written - written
            if planner_room < choice_tokens or reasoner_room <= self.longest_injection() or left < 1:
                return end(Stop.BUDGET if turns else Stop.PROMPT_TOO_LONG)

            planner_ids = planner_ids + observation
            choice = await planner(self._choice_request(planner_ids, len(turns)))
            planner_ids = planner_ids + choice.token_ids
            strategy, parsed = self._read_choice(choice)
            observer.chose(strategy)
            terminal = STRATEGIES[strategy].name == TERMINATION

            injected = self.injected_ids(strategy, last.step_end if last else None)
            reasoner_ids = reasoner_ids + injected
            room = reasoner_room - len(injected)
            max_tokens = min(room, left, limits.max_answer_tokens if terminal else limits.max_step_tokens)
            stop = () if terminal or self.injection is Injection.CHAT else (self.delimiter,)
            request = Request(reasoner_ids, max_tokens, stop, turn=len(turns))
            step = await reasoner(request)
            reasoner_ids = reasoner_ids + step.token_ids
            written += len(step.token_ids)
            text = self.reasoner.decode(step.token_ids)
            ended = self.step_end(step, request, text)
            turns.append(Turn(observation, choice, strategy, parsed, injected, step, text, ended))
            observer.wrote(turns[-1])
            if terminal:
                return end(Stop.TERMINATION)
            if ended is StepEnd.EOS and self.injection is Injection.INLINE:
                return end(Stop.REASONER_EOS)
        return end(Stop.MAX_TURNS)

    def _choice_request(self, prompt_ids: tuple[int, ...], turn: int) -> Request:
        if self.constrained:
            return Request(prompt_ids, 1, allowed_ids=self.label_ids, turn=turn)
        return Request(prompt_ids, self.limits.max_choice_tokens, ("\n",), turn=turn)

    def _read_choice(self, choice: Generation) -> tuple[int, bool]:
        """The strategy chosen, and whether it could be read."""
        if self.constrained:
            return self.label_ids.index(choice.token_ids[0]), True
        parsed = parse_choice(self.planner.decode(choice.token_ids))
        return (strategy_index(CONTINUATION), False) if parsed is None else (parsed, True)
