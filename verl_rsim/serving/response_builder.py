"""Builds the answer that a client sees while the dialogue plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from verl_rsim.core.episode import Observer, StepEnd, Turn
from verl_rsim.core.open_blocks import closing_fence
from verl_rsim.core.prompts import Codec
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.serving.events import STOP_STRING, Event, StrategyChosen, TextDelta, TurnSummary
from verl_rsim.serving.incremental_text import IncrementalDecoder, StopStringFilter


class StopStringReached(Exception):
    """Raised through the dialogue when the answer reaches a stop string; it ends the episode."""


class AnswerBuilder(Observer):
    """Joins the reasoner's steps into one text and reports each change as an event.

    A step after one that was cut off begins with a blank line, as in the reasoner's row.

    Args:
        index: position of the answer in its request.
        codec: the reasoner's codec.
        stops: strings at which the answer ends.
        inline: put each step's strategy before it.
        report: receives every event as it happens.

    Attributes:
        text: the answer so far.
    """

    def __init__(self, index: int, codec: Codec, stops: Sequence[str], inline: bool, report: Callable[[Event], None]):
        self.index, self.codec, self.inline, self._report = index, codec, inline, report
        self.text = ""
        self._strategies: list[int] = []
        self._turns: list[Turn] = []
        self._stop_filter = StopStringFilter(stops)
        self._decoder = IncrementalDecoder(codec)
        self._separator = ""
        self._streamed = 0  # tokens of the current step that were decoded already

    def chose(self, strategy: int) -> None:
        last = self._turns[-1] if self._turns else None
        # Only a delimiter separates two steps by itself. A step that was cut may leave a code fence open.
        if last is None or last.step_end is StepEnd.DELIMITER:
            self._separator = ""
        else:
            self._separator = closing_fence(last.step_text) + "\n\n"
        if self.inline:
            self._separator += f"[{STRATEGIES[strategy].title}]\n"
        self._report(StrategyChosen(self.index, len(self._strategies), STRATEGIES[strategy]))
        self._strategies.append(strategy)
        self._decoder, self._streamed = IncrementalDecoder(self.codec), 0

    def add_tokens(self, ids: Sequence[int]) -> None:
        """Appends tokens of the current step, as an engine streams them."""
        self._streamed += len(ids)
        self._append(self._decoder.feed(ids))

    def wrote(self, turn: Turn) -> None:
        self._turns.append(turn)
        self._append(self._decoder.feed(turn.step.token_ids[self._streamed :]) + self._decoder.flush())

    def flush(self) -> None:
        """Shows the text that was held back as a possible stop string."""
        self._show(self._stop_filter.flush())

    @property
    def unfinished_tokens(self) -> int:
        """Tokens of the step that a stop string cut short; 0 if no step was."""
        return self._streamed if len(self._strategies) > len(self._turns) else 0

    def turns(self) -> tuple[TurnSummary, ...]:
        """Returns all turns so far, one that a stop string cut short included."""
        summaries = [
            TurnSummary(
                strategy=STRATEGIES[turn.strategy],
                tokens=len(turn.step.token_ids),
                end=turn.step_end.value,
                choice_ids=turn.choice.token_ids,
                injected_ids=turn.injected_ids,
                step_ids=turn.step.token_ids,
            )
            for turn in self._turns
        ]
        for strategy in self._strategies[len(self._turns) :]:
            summaries.append(TurnSummary(STRATEGIES[strategy], self.unfinished_tokens, STOP_STRING))
        return tuple(summaries)

    def _append(self, text: str) -> None:
        if not text:
            return
        separator, self._separator = self._separator, ""
        self._show(self._stop_filter.feed(separator + text))
        if self._stop_filter.found:
            raise StopStringReached

    def _show(self, text: str) -> None:
        if text:
            self.text += text
            self._report(TextDelta(self.index, text))
