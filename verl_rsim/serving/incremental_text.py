"""Streams growing text only as far as it is certain: no partial characters, no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from verl_rsim.core.prompts import Codec

_REPLACEMENT = "\ufffd"
"""Character that the bytes of an unfinished character decode to."""


class IncrementalDecoder:
    """Decodes the tokens of a step piece by piece; the joined pieces equal the text of the whole step.

    Each piece is decoded together with the piece before it and the known part is cut off, since tokenizers treat the
    beginning of a text differently (they drop a leading space, for example).
    """

    def __init__(self, codec: Codec):
        self.codec = codec
        self._ids: list[int] = []
        self._prefix_offset = 0  # start of the last returned piece
        self._read_offset = 0  # end of the last returned piece

    def feed(self, ids: Sequence[int]) -> str:
        """Returns the text that further tokens add; empty while a character is unfinished."""
        self._ids += ids
        text = self._decode_new()
        if text.endswith(_REPLACEMENT):
            return ""
        if text:
            self._prefix_offset, self._read_offset = self._read_offset, len(self._ids)
        return text

    def flush(self) -> str:
        """Returns the text that is still held back, partial characters included."""
        text = self._decode_new()
        self._prefix_offset = self._read_offset = len(self._ids)
        return text

    def _decode_new(self) -> str:
        prefix = self.codec.decode(self._ids[self._prefix_offset : self._read_offset])
        return self.codec.decode(self._ids[self._prefix_offset :])[len(prefix) :]


class StopStringFilter:
    """Passes text on up to the first complete stop string, and holds back what could be the beginning of one.

    Attributes:
        found: True once a stop string was complete.
    """

    def __init__(self, stops: Sequence[str]):
        self.stops = stops
        self.found = False
        self._held = ""

    def feed(self, text: str) -> str:
        """Returns the text that may be shown; empty after a stop string."""
        if self.found:
            return ""
        text = self._held + text
        # The stop string that is complete first counts, as if the text had come character by character. Where two end
        # at the same place, the smaller start wins, which is the longer one.
        matches = []
        for stop in self.stops:
            start = text.find(stop)
            if start >= 0:
                matches.append((start + len(stop), start))
        if matches:
            self.found, self._held = True, ""
            _, start = min(matches)
            return text[:start]
        held = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """Returns the text that was held back and turned out to be no stop string."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Returns the number of characters at the end of ``text`` that are the beginning of ``stop``."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
