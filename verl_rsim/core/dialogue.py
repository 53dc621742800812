"""Plays an episode between planner and reasoner, token by token, and turns it into two training rows.

The models are two async callables, so that the same :meth:`Dialogue.play` serves training, validation, evaluation and
serving. Imports neither torch nor verl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from verl_rsim.core.continued_generation import generate_while
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
from verl_rsim.core.open_blocks import FENCES, closing_fence, is_open
from verl_rsim.core.play_state import PlayState, TurnRoom
from verl_rsim.core.prompts import CUE, OBSERVATION, Codec, Message, planner_messages
from verl_rsim.core.strategies import CONTINUATION, STRATEGIES, TERMINATION, parse_choice, strategy_index
from verl_rsim.utils.errors import ConfigError

_THINKING = ("<think>", "</think>")
"""Marks that a model may write before a free-form choice; they are no choice."""


def _is_terminal(strategy: int) -> bool:
    """Returns True for *termination*, after which the reasoner writes its final answer."""
    return STRATEGIES[strategy].name == TERMINATION


@dataclass(frozen=True)
class Dialogue:
    """Plays episodes between a planner and a reasoner by fixed rules; made once, used for many episodes.

    Attributes:
        planner, reasoner: the two models' codecs.
        limits: bounds.
        injection: where instructions go.
        constrained: the planner samples among the nine labels; otherwise it writes freely.
        delimiter: the string that ends a step, except inside a code fence or a display formula.
    """

    planner: Codec
    reasoner: Codec
    limits: Limits
    injection: Injection = Injection.INLINE
    constrained: bool = True
    delimiter: str = "\n\n"
    _encoded: dict[tuple[int, StepEnd | None, str], tuple[int, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def label_ids(self) -> tuple[int, ...]:
        """The planner's token for each strategy."""
        return self.planner.label_ids()

    @cached_property
    def _user_turn(self) -> tuple[str, str]:
        """The reasoner's template before and after a user message, for chat injection."""
        fix = "the reasoner's chat template hides earlier messages; use inline"
        return _user_turn(self.reasoner, "rsim.injection", "chat", fix)

    @cached_property
    def _planner_turn(self) -> tuple[str, str]:
        """The planner's template before and after a user message, for free decoding."""
        fix = "the planner's chat template hides earlier messages; use constrained"
        return _user_turn(self.planner, "rsim.planner_decoding", "free", fix)

    def injected_ids(self, strategy: int, previous: StepEnd | None, closing: str = "") -> tuple[int, ...]:
        """Returns the reasoner's tokens that carry ``strategy`` after a step that ended with ``previous``.

        ``previous`` is None in the first turn. ``closing`` closes a code fence that the step left open, so that the
        instruction does not become code. Each text is encoded once and then taken from a cache.
        """
        key = (strategy, previous, closing)
        if key not in self._encoded:
            inline = self.injection is Injection.INLINE
            text = self._inline_text(strategy, previous) if inline else self._chat_text(strategy, previous)
            # Graders read the row without control tokens: the fence must not share its line with the next message.
            separator = "" if inline or not closing else "\n"
            self._encoded[key] = self.reasoner.encode(closing + separator + text)
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
            before = self.reasoner.without_end_of_turn(before)
        return f"{before}{request}{after}"

    def longest_injection(self) -> int:
        """Returns the number of tokens of the longest instruction after any step."""
        return max(self._longest_after(f"\n{fence}") for fence in FENCES)

    def _longest_after(self, closing: str) -> int:
        """Returns the number of tokens of the longest instruction, where a cut step leaves ``closing`` to write."""
        ends = [(end, closing if end is StepEnd.LENGTH else "") for end in (None, *StepEnd)]
        return max(len(self.injected_ids(i, *end)) for i in range(len(STRATEGIES)) for end in ends)

    def prompts(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the token ids that planner and reasoner read before the first turn of a question."""
        open_end = self.injection is Injection.CHAT
        planner = self.planner.chat(planner_messages(messages), begin=CUE)
        return planner, self.reasoner.chat(messages, open_end=open_end)

    def observation_ids(self, last: Turn) -> tuple[int, ...]:
        """Returns the planner's tokens that show it the step of a turn and ask for the next choice.

        A constrained planner reads them in its own message, between its labels. A planner that writes freely has
        finished its message, and reads them as the user's next one.
        """
        step = self.planner.literal(last.step_text.strip())
        if self.constrained:
            return self.planner.encode(OBSERVATION.format(step=step))
        before, after = self._planner_turn
        if last.choice.token_ids[-1] in self.planner.eos_ids:
            before = self.planner.without_end_of_turn(before)
        return self.planner.encode(before + step + after + CUE)

    def step_end(self, step: Generation, request: Request, text: str) -> StepEnd:
        """Returns the reason for which a generation ended, from its tokens, its text and what was requested."""
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
            planner: samples the planner; called with the planner's whole context, in most turns once.
            reasoner: samples the reasoner; called with the reasoner's whole context, once a turn and again for each
                delimiter inside a code fence or a display formula.
            observer: its methods are called as the episode goes on.

        Returns:
            The finished episode. Errors of the two callables propagate.
        """
        state = PlayState.begin(*self.prompts(messages))
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

    def _room_for_turn(self, state: PlayState) -> TurnRoom | None:
        """Returns the tokens that the next turn may use, or None if it does not fit into one of the two rows."""
        limits = self.limits
        last = state.last_turn
        observation = self.observation_ids(last) if last else ()
        planner_used = len(state.planner_ids) - len(state.planner_prompt_ids) + len(observation)
        reasoner_room = limits.reasoner_response - (len(state.reasoner_ids) - len(state.reasoner_prompt_ids))
        left_to_write = reasoner_room if limits.max_written is None else limits.max_written - state.written
        # An instruction alone is no turn: there must be room for the longest one and a token of the step.
        fits = (
            limits.planner_response - planner_used >= self._choice_tokens
            and reasoner_room > self._longest_after(_closing(last))
            and left_to_write >= 1
        )
        return TurnRoom(observation, reasoner_room, left_to_write) if fits else None

    async def _play_turn(
        self, state: PlayState, room: TurnRoom, planner: Generate, reasoner: Generate, observer: Observer
    ) -> Turn:
        """Plays one turn: the planner chooses a strategy, the reasoner writes a step under it."""
        state.planner_ids += room.observation_ids
        choice = await self._write_choice(planner, self._choice_request(state.planner_ids, len(state.turns)))
        state.planner_ids += choice.token_ids
        strategy, parsed = self._read_choice(choice)
        observer.chose(strategy)

        injected = self._injected_after(state.last_turn, strategy)
        state.reasoner_ids += injected
        request = self._step_request(state, strategy, min(room.reasoner - len(injected), room.left_to_write))
        step, text, ended = await self._write_step(reasoner, request)
        state.reasoner_ids += step.token_ids
        state.written += len(step.token_ids)

        turn = Turn(room.observation_ids, choice, strategy, parsed, injected, step, text, ended)
        state.turns.append(turn)
        observer.wrote(turn)
        return turn

    def _injected_after(self, last: Turn | None, strategy: int) -> tuple[int, ...]:
        """Returns the tokens that carry ``strategy`` after a turn, or in the first turn if ``last`` is None."""
        if last is None:
            return self.injected_ids(strategy, None)
        return self.injected_ids(strategy, last.step_end, _closing(last))

    async def _write_step(self, reasoner: Generate, request: Request) -> tuple[Generation, str, StepEnd]:
        """Has the reasoner write a step, and go on with it where it stopped inside an open block.

        Servers stop at every delimiter, since their stop strings know no code fences and no formulas.

        Returns:
            The step, its text, and the reason for its end.
        """

        def was_torn(step: Generation, part: Generation, asked: Request) -> bool:
            end = self.step_end(part, asked, self.reasoner.decode(part.token_ids))
            return end is StepEnd.DELIMITER and bool(asked.stop) and is_open(self.reasoner.decode(step.token_ids))

        step, last, asked = await generate_while(was_torn, reasoner, request)
        end = self.step_end(last, asked, self.reasoner.decode(last.token_ids))
        if was_torn(step, last, asked):  # there was no token left to go on with
            end = StepEnd.LENGTH
        return step, self.reasoner.decode(step.token_ids), end

    async def _write_choice(self, planner: Generate, request: Request) -> Generation:
        """Has the planner choose; a planner that writes freely goes on after a line without a word."""

        def is_blank(choice: Generation, part: Generation, _: Request) -> bool:
            return not self._choice_text(choice) and part.token_ids[-1] not in self.planner.eos_ids

        if self.constrained:
            return await planner(request)
        choice, *_ = await generate_while(is_blank, planner, request)
        return choice

    @property
    def _choice_tokens(self) -> int:
        """The tokens a choice may take: one label, or as many as a planner may write freely."""
        return 1 if self.constrained else self.limits.max_choice_tokens

    def _step_request(self, state: PlayState, strategy: int, room: int) -> Request:
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

    def _choice_text(self, choice: Generation) -> str:
        """Returns what a free-form planner wrote, without the marks of its thinking."""
        text = self.planner.decode(choice.token_ids)
        for mark in _THINKING:
            text = text.replace(mark, "")
        return text.strip()

    def _read_choice(self, choice: Generation) -> tuple[int, bool]:
        """Returns the index of the chosen strategy, and False if a free-form planner wrote no strategy."""
        if self.constrained:
            return self.label_ids.index(choice.token_ids[0]), True
        parsed = parse_choice(self._choice_text(choice))
        return (strategy_index(CONTINUATION), False) if parsed is None else (parsed, True)


def _closing(last: Turn | None) -> str:
    """Returns the text that closes a code fence that a turn left open because its step was cut."""
    return closing_fence(last.step_text) if last and last.step_end is StepEnd.LENGTH else ""


def _user_turn(codec: Codec, key: str, value: str, fix: str) -> tuple[str, str]:
    """Returns the template's text before and after a user message.

    Raises:
        ConfigError: the template does not show all messages; names the setting that needs it.
    """
    try:
        return codec.user_turn()
    except ValueError as error:
        raise ConfigError(key, value, fix) from error
