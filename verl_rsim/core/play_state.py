"""Holds an episode while it is played."""

from __future__ import annotations

from dataclasses import dataclass, field

from verl_rsim.core.episode import Episode, Stop, Turn


@dataclass(slots=True)
class PlayState:
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
    def begin(cls, planner_prompt: tuple[int, ...], reasoner_prompt: tuple[int, ...]) -> PlayState:
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
class TurnRoom:
    """The tokens that one turn may use.

    Attributes:
        observation_ids: the previous step as the planner reads it; empty in the first turn.
        reasoner: tokens left in the reasoner's row, for the instruction and the step.
        left_to_write: tokens that the reasoner may still generate in this episode.
    """

    observation_ids: tuple[int, ...]
    reasoner: int
    left_to_write: int
