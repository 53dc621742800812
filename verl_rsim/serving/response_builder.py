"""The answer a client sees, put together while the dialogue plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from verl_rsim.core.dialogue import Observer, StepEnd, Turn
from verl_rsim.core.prompts import Codec
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.serving.events import STOP_STRING, Chose, Event, Step, Wrote
from verl_rsim.serving.incremental_text import Decoder, StopFinder


class StopFound(Exception):
    """The answer reached a stop string; raised through the dialogue, it ends the episode."""


class Answer(Observer):
    """The reasoner's own steps as one text; a step that was cut off is set apart by a blank line, as in its row.

    Args:
        index: of the answer in its request.
        codec: the reasoner's.
        stops: strings at which the answer ends.
        inline: put each step's strategy before it.
        report: is told everything as it happens.
    """

    def __init__(self, index: int, codec: Codec, stops: Sequence[str], inline: bool, report: Callable[[Event], None]):
        self.index, self.codec, self.inline, self._report = index, codec, inline, report
        self.text = ""
        self._strategies: list[int] = []
        self._turns: list[Turn] = []
        self._stops = StopFinder(stops)
        self._decoder = Decoder(codec)
        self._lead = ""
        self._seen = 0

    def chose(self, strategy: int) -> None:
        last = self._turns[-1].step_end if self._turns else None
        self._lead = "" if last in (None, StepEnd.DELIMITER) else "\n\n"
        if self.inline:
            self._lead += f"[{STRATEGIES[strategy].title}]\n"
        self._report(Chose(self.index, len(self._strategies), STRATEGIES[strategy]))
        self._strategies.append(strategy)
        self._decoder, self._seen = Decoder(self.codec), 0

    def sampled(self, ids: Sequence[int]) -> None:
        """Tokens of the step under way, from an engine that tells."""
        self._seen += len(ids)
        self._show(self._decoder.feed(ids))

    def wrote(self, turn: Turn) -> None:
        self._turns.append(turn)
        self._show(self._decoder.feed(turn.step.token_ids[self._seen :]) + self._decoder.flush())

    def end(self) -> None:
        """Show what was held back."""
        self._add(self._stops.flush())

    @property
    def cut(self) -> int:
        """Tokens of the step that a stop string cut short."""
        return self._seen if len(self._strategies) > len(self._turns) else 0

    def steps(self) -> tuple[Step, ...]:
        """All turns so far."""
        done = [
            Step(
                STRATEGIES[turn.strategy],
                len(turn.step.token_ids),
                turn.step_end.value,
                turn.choice.token_ids,
                turn.injected_ids,
                turn.step.token_ids,
            )
            for turn in self._turns
        ]
        unfinished = self._strategies[len(done) :]
        return (*done, *(Step(STRATEGIES[strategy], self.cut, STOP_STRING) for strategy in unfinished))

    def _show(self, text: str) -> None:
        if not text:
            return
        lead, self._lead = self._lead, ""
        self._add(self._stops.feed(lead + text))
        if self._stops.found:
            raise StopFound

    def _add(self, text: str) -> None:
        if text:
            self.text += text
            self._report(Wrote(self.index, text))
