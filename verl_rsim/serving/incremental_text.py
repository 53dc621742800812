"""Text that grows token by token, shown only as far as it is certain: no half characters, no half stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from verl_rsim.core.prompts import Codec

_HALF = "\ufffd"
"""What bytes of an unfinished character decode to."""


class Decoder:
    """Decodes a step piece by piece; the pieces joined are the step's text.

    Each piece is decoded together with the one before, since tokenizers treat the start of a text differently.
    """

    def __init__(self, codec: Codec):
        self.codec = codec
        self._ids: list[int] = []
        self._before = self._shown = 0  # where the piece before began, and ended

    def feed(self, ids: Sequence[int]) -> str:
        """What further tokens add; empty while a character is unfinished."""
        self._ids += ids
        text = self._new()
        if text.endswith(_HALF):
            return ""
        if text:
            self._before, self._shown = self._shown, len(self._ids)
        return text

    def flush(self) -> str:
        """What is still held back."""
        text = self._new()
        self._before = self._shown = len(self._ids)
        return text

    def _new(self) -> str:
        before = self.codec.decode(self._ids[self._before : self._shown])
        return self.codec.decode(self._ids[self._before :])[len(before) :]


class StopFinder:
    """Passes text on up to the stop string that is complete first; holds back what could be the beginning of one."""

    def __init__(self, stops: Sequence[str]):
        self.stops = stops
        self.found = False
        self._held = ""

    def feed(self, text: str) -> str:
        """What may be shown; empty after a stop string."""
        if self.found:
            return ""
        text = self._held + text
        places = [(place + len(stop), place) for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)[1]]
        keep = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back and turned out to be no stop string."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` that begin ``stop``."""
    return next((k for k in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:k])), 0)
