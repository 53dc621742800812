"""Growing text: pieces that join to the whole wherever they are cut, stop strings found across them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_rsim.core.prompts import Codec, eos_ids
from verl_rsim.serving.incremental_text import IncrementalDecoder, StopStringFilter

TEXTS = ("The answer is 42.\n\n", "Größe: 3 × 4 → „zwölf“ 👩‍👩‍👧 नमस्ते\n", " leading and trailing ", "\u2028\ufffd�x")  # noqa: RUF001


def pieces(ids, seed: int, most: int):
    source, place = random.Random(seed), 0
    while place < len(ids):
        size = source.randint(1, most)
        yield ids[place : place + size]
        place += size


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_join_to_the_whole_and_hold_no_half_characters(tokenizers, family, text):
    codec = Codec(tokenizers[family], eos_ids(tokenizers[family]))
    ids = (*codec.encode(text), *codec.eos_ids)
    for seed in range(5):
        decoder = IncrementalDecoder(codec)
        shown = [decoder.feed(piece) for piece in pieces(ids, seed, 1 + seed)]
        assert "".join(shown) + decoder.flush() == codec.decode(ids) == text
        assert not any(piece.endswith("\ufffd") for piece in shown)
        assert sum(map(bool, shown)) > (len(text) > 10)


def test_bytes_that_are_no_text_are_shown_as_the_whole_step_shows_them(tokenizers):
    codec = Codec(tokenizers["llama"], frozenset())
    for seed in range(50):
        ids = [random.Random(seed).randrange(3, 260) for _ in range(40)]
        decoder = IncrementalDecoder(codec)
        assert "".join(decoder.feed([i]) for i in ids) + decoder.flush() == codec.decode(ids)


@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3), st.integers(0, 99))
def test_a_stop_string_is_found_wherever_the_pieces_end(text, stops, seed):
    finder = StopStringFilter(stops)
    shown = "".join(finder.feed(piece) for piece in pieces(text, seed, 3))
    complete = (text[:end] for end in range(len(text) + 1) if text[:end].endswith(tuple(stops)))
    first = next(complete, None)
    assert finder.found == (first is not None)
    if first is None:
        assert shown + finder.flush() == text
    else:
        assert shown == first.removesuffix(max((stop for stop in stops if first.endswith(stop)), key=len))
