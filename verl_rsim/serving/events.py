"""What a client is told of an episode while it is played."""

from __future__ import annotations

from dataclasses import dataclass

from verl_rsim.core.strategies import Strategy

STOP_STRING = "stop_string"
"""Why an episode or a step ended that reached one of the request's stop strings."""


@dataclass(frozen=True, slots=True)
class Chose:
    """The planner chose the strategy of a turn."""

    index: int
    turn: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Wrote:
    """The answer grew by ``text``."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens a model was given and generated."""

    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Step:
    """A turn of a finished episode.

    Attributes:
        strategy: of the planner.
        tokens: the reasoner's.
        end: a :class:`verl_rsim.core.dialogue.StepEnd`, or :data:`STOP_STRING`.
        choice_ids, injected_ids, step_ids: see :class:`verl_rsim.core.dialogue.Turn`; empty if the step was cut short.
    """

    strategy: Strategy
    tokens: int
    end: str
    choice_ids: tuple[int, ...] = ()
    injected_ids: tuple[int, ...] = ()
    step_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EpisodeFinished:
    """An episode ended.

    Attributes:
        finish_reason: OpenAI's "stop" or "length".
        stop: a :class:`verl_rsim.core.dialogue.Stop`, or :data:`STOP_STRING`.
        text: the whole answer.
    """

    index: int
    finish_reason: str
    stop: str
    text: str
    steps: tuple[Step, ...]
    planner: Counts
    reasoner: Counts


Event = Chose | Wrote | EpisodeFinished
