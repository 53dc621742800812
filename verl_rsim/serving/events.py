"""Events that an episode sends to its request while it is played."""

from __future__ import annotations

from dataclasses import dataclass

from verl_rsim.core.strategies import Strategy

STOP_STRING = "stop_string"
"""Reason for the end of an episode or a turn that reached one of the request's stop strings."""


@dataclass(frozen=True, slots=True)
class StrategyChosen:
    """Reports that the planner chose the strategy of a turn.

    Attributes:
        index: position of the answer in its request.
        turn: position of the turn in the episode, from 0.
        strategy: the planner's choice.
    """

    index: int
    turn: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Reports text that was appended to the answer with this index."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts the tokens of one model.

    Attributes:
        prompt: tokens that the model was given.
        completion: tokens that the model generated.
    """

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class TurnSummary:
    """Summarises a turn of a finished episode.

    Attributes:
        strategy: the planner's choice.
        tokens: tokens that the reasoner generated.
        end: value of a :class:`verl_rsim.core.episode.StepEnd`, or :data:`STOP_STRING`.
        choice_ids, injected_ids, step_ids: see :class:`verl_rsim.core.episode.Turn`; empty if the step was cut short.
    """

    strategy: Strategy
    tokens: int
    end: str
    choice_ids: tuple[int, ...] = ()
    injected_ids: tuple[int, ...] = ()
    step_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EpisodeFinished:
    """Reports a finished episode.

    Attributes:
        index: position of the answer in its request.
        finish_reason: OpenAI's "stop" or "length".
        stop: value of a :class:`verl_rsim.core.episode.Stop`, or :data:`STOP_STRING`.
        text: the whole answer.
        turns: all turns, an unfinished one included.
        planner, reasoner: tokens of each model.
    """

    index: int
    finish_reason: str
    stop: str
    text: str
    turns: tuple[TurnSummary, ...]
    planner: TokenCounts
    reasoner: TokenCounts


Event = StrategyChosen | TextDelta | EpisodeFinished
