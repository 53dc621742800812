"""Defines an episode: its requests, generations, turns, limits and the two training rows it becomes."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from verl_rsim.core.strategies import STRATEGIES, Strategy


class Stop(str, enum.Enum):
    """Names the reason for which an episode ended."""

    TERMINATION = "termination"  # the planner chose it; the reasoner then wrote its final answer
    REASONER_EOS = "reasoner_eos"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"  # no room for another turn in one of the two rows, or the reasoner wrote all it may
    PROMPT_TOO_LONG = "prompt_too_long"  # no room for the first turn


class StepEnd(str, enum.Enum):
    """Names the reason for which a step ended."""

    DELIMITER = "delimiter"
    LENGTH = "length"
    EOS = "eos"


class Injection(str, enum.Enum):
    """Names the place into which the strategy's instruction is written."""

    INLINE = "inline"  # into the reasoner's own turn; its whole row stays one assistant message
    CHAT = "chat"  # as a user turn before each step


@dataclass(frozen=True, slots=True)
class Request:
    """Asks a model for one generation.

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
    """Holds sampled tokens, the end-of-sequence token included, and their log-probs under the sampling distribution."""

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
    """Bounds an episode in turns and tokens.

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
    """Holds a strategy and the step that the reasoner wrote under it.

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
    """Holds a training row: a prompt, and a response of generated (mask 1) and given (mask 0) tokens.

    ``log_probs`` is 0.0 where the mask is 0. The last response token is a generated one.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    mask: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Episode:
    """Holds a finished episode."""

    planner_prompt_ids: tuple[int, ...]
    reasoner_prompt_ids: tuple[int, ...]
    turns: tuple[Turn, ...]
    stop: Stop

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """The strategies in the order they were used."""
        return tuple(STRATEGIES[turn.strategy] for turn in self.turns)

    def planner_row(self) -> TokenRow:
        """Returns the planner's tokens: each choice (mask 1) after the observation of the step before it (mask 0)."""
        return _row(self.planner_prompt_ids, [(turn.observation_ids, turn.choice) for turn in self.turns])

    def reasoner_row(self) -> TokenRow:
        """Returns the reasoner's tokens: each step (mask 1) after the instruction it was written under (mask 0)."""
        return _row(self.reasoner_prompt_ids, [(turn.injected_ids, turn.step) for turn in self.turns])


class Observer:
    """Receives the events of an episode and ignores them; subclasses override its methods.

    An error that a method raises ends the episode.
    """

    def chose(self, strategy: int) -> None:
        """Called when the planner has chosen and the reasoner has not written yet."""

    def wrote(self, turn: Turn) -> None:
        """Called when a step is finished."""


def _row(prompt_ids: tuple[int, ...], parts: Sequence[tuple[tuple[int, ...], Generation]]) -> TokenRow:
    ids: list[int] = []
    mask: list[int] = []
    log_probs: list[float] = []
    for given, generated in parts:
        ids += [*given, *generated.token_ids]
        mask += [0] * len(given) + [1] * len(generated.token_ids)
        log_probs += [0.0] * len(given) + [*generated.log_probs]
    return TokenRow(prompt_ids, tuple(ids), tuple(mask), tuple(log_probs))
