"""Packs episodes for the page: one small index of all, and compressed chunks of which the page opens those it shows."""

from __future__ import annotations

import base64
import gzip
import json
import os
from typing import Any

from verl_rsim.core.episode_record import EpisodeRecord, to_json
from verl_rsim.core.strategies import STRATEGIES

CHUNK = 100
"""Episodes in a chunk."""
SNIPPET = 100
"""Characters of a question that the list shows."""
KEPT = 500
"""Characters of it that are kept until it is known how all of them begin."""

_DIGITS = {strategy.name: str(index) for index, strategy in enumerate(STRATEGIES)}


class Pack:
    """Collects episodes, compressed as they come.

    Attributes:
        chunks: base64 of gzipped JSON arrays of :data:`CHUNK` records each; the last one may be shorter.
        count: episodes so far.
    """

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self.count = 0
        self._open: list[str] = []
        names = ("kind", "condition", "step", "sample", "right", "stop", "strategies", "question")
        self._columns: dict[str, list[Any]] = {name: [] for name in names}
        self._questions: dict[str, int] = {}
        self._snippets: list[str] = []

    def add(self, record: EpisodeRecord) -> None:
        """Append an episode; its number is the count before."""
        question = self._questions.setdefault(record.question_id, len(self._questions))
        if question == len(self._snippets):
            self._snippets.append(" ".join(record.question.split())[:KEPT])
        row = {
            "kind": record.kind,
            "condition": record.condition,
            "step": record.step,
            "sample": record.sample,
            "right": int(record.right),
            "stop": record.stop,
            "strategies": "".join(_DIGITS.get(turn.strategy, "") for turn in record.turns),
            "question": question,
        }
        for name, value in row.items():
            self._columns[name].append(value)
        self._open.append(to_json(record))
        self.count += 1
        if len(self._open) == CHUNK:
            self._close()

    def _close(self) -> None:
        self.chunks.append(packed(f"[{','.join(self._open)}]"))
        self._open = []

    def index(self) -> str:
        """Closes the last chunk; base64 of the gzipped columns, one value an episode, and the questions' beginnings."""
        if self._open:
            self._close()
        about = {"chunk": CHUNK, "count": self.count, "titles": [strategy.title for strategy in STRATEGIES]}
        about["names"] = [strategy.name for strategy in STRATEGIES]
        return packed(json.dumps({**about, "columns": self._columns, "snippets": snippets(self._snippets)}))


def snippets(questions: list[str]) -> list[str]:
    """What tells questions apart: their text from the word in which they first differ."""
    common = os.path.commonprefix(questions) if len(questions) > 1 else ""
    start = common.rfind(" ") + 1
    return [("… " if start else "") + question[start : start + SNIPPET] for question in questions]


def packed(text: str) -> str:
    """Gzip, then base64."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()
