"""Plays an episode between planner and reasoner, token by token, and turns it into two training rows.

The models are two async callables, so that the same :meth:`Dialogue.play` serves training, validation, evaluation and
serving. Imports neither torch nor verl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from verl_rsim.core.episode import (
    Episode,
    Generate,
    Generation,
    Injection,
    Limits,
    Observer,
    Request,
    StepEnd,
    Stop,
    Turn,
)
from verl_rsim.core.prompts import OBSERVATION, Codec, Message, planner_messages
from verl_rsim.core.strategies import CONTINUATION, STRATEGIES, TERMINATION, parse_choice, strategy_index


def _is_terminal(strategy: int) -> bool:
    """Returns True for *termination*, after which the reasoner writes its final answer."""
    return STRATEGIES[strategy].name == TERMINATION


@dataclass(slots=True)
class _PlayState:
    """Holds an unfinished episode: what both models have read and written so far, and the turns.

    Attributes:
        planner_prompt_ids, reasoner_prompt_ids: tokens before the first turn.
        planner_ids, reasoner_ids: each model's whole context, the prompt included.
        turns: the finished turns.
        written: tokens that the reasoner has generated.
    """

    planner_prompt_ids: tuple[int, ...]
    reasoner_prompt_ids: tuple[int, ...]
    planner_ids: tuple[int, ...]
    reasoner_ids: tuple[int, ...]
    turns: list[Turn] = field(default_factory=list)
    written: int = 0

    @classmethod
    def begin(cls, planner_prompt: tuple[int, ...], reasoner_prompt: tuple[int, ...]) -> _PlayState:
        """Returns the state before the first turn."""
        return cls(planner_prompt, reasoner_prompt, planner_prompt, reasoner_prompt)

    @property
    def last_turn(self) -> Turn | None:
        """The turn before the next one."""
        return self.turns[-1] if self.turns else None

    def finish(self, stop: Stop) -> Episode:
        """Returns the episode as it ended."""
        return Episode(self.planner_prompt_ids, self.reasoner_prompt_ids, tuple(self.turns), stop)


@dataclass(frozen=True, slots=True)
class _TurnRoom:
    """The tokens that one turn may use.

    Attributes:
        observation_ids: the previous step as the planner reads it; empty in the first turn.
        reasoner: tokens left in the reasoner's row, for the instruction and the step.
        left_to_write: tokens that the reasoner may still generate in this episode.
    """

    observation_ids: tuple[int, ...]
    reasoner: int
    left_to_write: int


@dataclass(frozen=True)
class Dialogue:
    """Plays episodes between a planner and a reasoner by fixed rules; made once, used for many episodes.

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
        """Returns the reasoner's tokens that carry ``strategy`` after a step that ended with ``previous``.

        ``previous`` is None in the first turn. Each text is encoded once and then taken from a cache.
        """
        key = (strategy, previous)
        if key not in self._encoded:
            inline = self.injection is Injection.INLINE
            text = self._inline_text(strategy, previous) if inline else self._chat_text(strategy, previous)
            self._encoded[key] = self.reasoner.encode(text)
        return self._encoded[key]

    def _inline_text(self, strategy: int, previous: StepEnd | None) -> str:
        """Returns the instruction as a paragraph of the reasoner's own message."""
        begins_paragraph = previous in (None, StepEnd.DELIMITER)
        lead = "" if begins_paragraph else "\n\n"
        return f"{lead}{STRATEGIES[strategy].instruction}\n"

    def _chat_text(self, strategy: int, previous: StepEnd | None) -> str:
        """Returns the request as a user message, with the template's text around it."""
        request = STRATEGIES[strategy].request
        before, after = self._user_turn
        if previous is None:  # completes the question, which the prompt left open
            return f"\n\n{request}{after}"
        if previous is StepEnd.EOS:
            before = self._without_end_of_turn(before)
        return f"{before}{request}{after}"

    def _without_end_of_turn(self, text: str) -> str:
        """Removes a leading end-of-turn token, which a step that ended by itself already brought along."""
        for token in self.reasoner.eos_ids:
            end = self.reasoner.tokenizer.decode([token])
            if end and text.startswith(end):
                return text.removeprefix(end)
        return text

    def longest_injection(self) -> int:
        """Returns the number of tokens of the longest instruction after any step."""
        return max(len(self.injected_ids(i, end)) for i in range(len(STRATEGIES)) for end in (None, *StepEnd))

    def prompts(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the token ids that planner and reasoner read before the first turn of a question."""
        open_end = self.injection is Injection.CHAT
        return self.planner.chat(planner_messages(messages)), self.reasoner.chat(messages, open_end=open_end)

    def step_end(self, step: Generation, request: Request, text: str) -> StepEnd:
        """Returns the reason for which a step ended, from its tokens and from what was requested."""
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
        """Plays one episode: the two models work on one question, turn by turn.

        Args:
            messages: the question as a chat, ending with a user message.
            planner: samples the planner; called once a turn with the planner's whole context.
            reasoner: samples the reasoner; called once a turn with the reasoner's whole context.
            observer: its methods are called as the episode goes on.

        Returns:
            The finished episode. Errors of the two callables propagate.
        """
        state = _PlayState.begin(*self.prompts(messages))
        if len(state.planner_ids) > self.limits.planner_prompt or len(state.reasoner_ids) > self.limits.reasoner_prompt:
            return state.finish(Stop.PROMPT_TOO_LONG)
        while len(state.turns) < self.limits.max_turns:
            room = self._room_for_turn(state)
            if room is None:
                return state.finish(Stop.BUDGET if state.turns else Stop.PROMPT_TOO_LONG)
            turn = await self._play_turn(state, room, planner, reasoner, observer)
            if _is_terminal(turn.strategy):
                return state.finish(Stop.TERMINATION)
            if turn.step_end is StepEnd.EOS and self.injection is Injection.INLINE:
                return state.finish(Stop.REASONER_EOS)
        return state.finish(Stop.MAX_TURNS)

    def _room_for_turn(self, state: _PlayState) -> _TurnRoom | None:
        """Returns the tokens that the next turn may use, or None if it does not fit into one of the two rows."""
        limits = self.limits
        last = state.last_turn
        observation = self.planner.encode(OBSERVATION.format(step=last.step_text.strip())) if last else ()
        planner_used = len(state.planner_ids) - len(state.planner_prompt_ids) + len(observation)
        reasoner_room = limits.reasoner_response - (len(state.reasoner_ids) - len(state.reasoner_prompt_ids))
        left_to_write = reasoner_room if limits.max_written is None else limits.max_written - state.written
        # An instruction alone is no turn: there must be room for the longest one and a token of the step.
        fits = (
            limits.planner_response - planner_used >= self._choice_tokens
            and reasoner_room > self.longest_injection()
            and left_to_write >= 1
        )
        return _TurnRoom(observation, reasoner_room, left_to_write) if fits else None

    async def _play_turn(
        self, state: _PlayState, room: _TurnRoom, planner: Generate, reasoner: Generate, observer: Observer
    ) -> Turn:
        """Plays one turn: the planner chooses a strategy, the reasoner writes a step under it."""
        previous = state.last_turn.step_end if state.last_turn else None
        state.planner_ids += room.observation_ids
        choice = await planner(self._choice_request(state.planner_ids, len(state.turns)))
        state.planner_ids += choice.token_ids
        strategy, parsed = self._read_choice(choice)
        observer.chose(strategy)

        injected = self.injected_ids(strategy, previous)
        state.reasoner_ids += injected
        request = self._step_request(state, strategy, min(room.reasoner - len(injected), room.left_to_write))
        step = await reasoner(request)
        state.reasoner_ids += step.token_ids
        state.written += len(step.token_ids)

        text = self.reasoner.decode(step.token_ids)
        ended = self.step_end(step, request, text)
        turn = Turn(room.observation_ids, choice, strategy, parsed, injected, step, text, ended)
        state.turns.append(turn)
        observer.wrote(turn)
        return turn

    @property
    def _choice_tokens(self) -> int:
        """The tokens a choice may take: one label, or as many as a planner may write freely."""
        return 1 if self.constrained else self.limits.max_choice_tokens

    def _step_request(self, state: _PlayState, strategy: int, room: int) -> Request:
        """Returns what is asked of the reasoner: a step, or after *termination* the final answer."""
        terminal = _is_terminal(strategy)
        bound = self.limits.max_answer_tokens if terminal else self.limits.max_step_tokens
        # A step injected as chat is a whole assistant message: only the model's own end of turn ends it.
        delimited = not terminal and self.injection is Injection.INLINE
        stop = (self.delimiter,) if delimited else ()
        return Request(state.reasoner_ids, min(room, bound), stop, turn=len(state.turns))

    def _choice_request(self, prompt_ids: tuple[int, ...], turn: int) -> Request:
        if self.constrained:
            return Request(prompt_ids, self._choice_tokens, allowed_ids=self.label_ids, turn=turn)
        return Request(prompt_ids, self._choice_tokens, ("\n",), turn=turn)

    def _read_choice(self, choice: Generation) -> tuple[int, bool]:
        """Returns the index of the chosen strategy, and False if a free-form planner wrote no strategy."""
        if self.constrained:
            return self.label_ids.index(choice.token_ids[0]), True
        parsed = parse_choice(self.planner.decode(choice.token_ids))
        return (strategy_index(CONTINUATION), False) if parsed is None else (parsed, True)
