"""Compresses episodes for the HTML page: an index of all episodes, and chunks that the page unpacks when needed."""

from __future__ import annotations

import base64
import gzip
import json
import os

from verl_rsim.core.episode_record import EpisodeRecord, to_json
from verl_rsim.core.strategies import STRATEGIES

CHUNK_EPISODES = 100
"""Episodes in a chunk."""
SNIPPET_CHARACTERS = 100
"""Characters of a question that the list shows."""
KEPT_CHARACTERS = 500
"""Characters of a question that are kept until all are known and their common beginning can be cut."""

_DIGITS = {strategy.name: str(index) for index, strategy in enumerate(STRATEGIES)}


class EpisodeArchive:
    """Collects episodes and compresses them as they come.

    Attributes:
        chunks: Gzipped JSON arrays of :data:`CHUNK_EPISODES` records each, in base64. The last one may be shorter.
        count: Number of episodes so far.
    """

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self.count = 0
        self._open_chunk: list[str] = []
        names = ("kind", "condition", "step", "sample", "right", "stop", "strategies", "question")
        self._columns: dict[str, list[str | int]] = {name: [] for name in names}
        self._questions: dict[str, int] = {}
        self._question_texts: list[str] = []

    def add(self, record: EpisodeRecord) -> None:
        """Appends an episode. Its number is the count before."""
        question = self._questions.setdefault(record.question_id, len(self._questions))
        if question == len(self._question_texts):  # a new question
            self._question_texts.append(" ".join(record.question.split())[:KEPT_CHARACTERS])
        row: dict[str, str | int] = {
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
        self._open_chunk.append(to_json(record))
        self.count += 1
        if len(self._open_chunk) == CHUNK_EPISODES:
            self._close_chunk()

    def _close_chunk(self) -> None:
        self.chunks.append(compress(f"[{','.join(self._open_chunk)}]"))
        self._open_chunk = []

    def index(self) -> str:
        """Closes the last chunk and returns the compressed index.

        The index holds columns with one value per episode, and the beginnings of the questions.
        """
        if self._open_chunk:
            self._close_chunk()
        index = {
            "chunk": CHUNK_EPISODES,
            "count": self.count,
            "titles": [strategy.title for strategy in STRATEGIES],
            "names": [strategy.name for strategy in STRATEGIES],
            "columns": self._columns,
            "snippets": snippets(self._question_texts),
        }
        return compress(json.dumps(index))


def snippets(questions: list[str]) -> list[str]:
    """Returns the beginnings of questions, without what all of them begin with."""
    common = os.path.commonprefix(questions) if len(questions) > 1 else ""
    start = common.rfind(" ") + 1  # at the beginning of the word in which they first differ
    return [("… " if start else "") + question[start : start + SNIPPET_CHARACTERS] for question in questions]


def compress(text: str) -> str:
    """Returns the text gzipped and in base64."""
    # mtime=0: the same episodes give the same file. A model may write lone surrogates, which UTF-8 cannot encode.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()
