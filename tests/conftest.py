"""Shared fixtures: tiny models, made once a session, and a codec that needs no model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from support.paths import ROOT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VERL_PLATFORM", "cpu")  # the tests need no GPU and use none
settings.register_profile("shared", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("shared")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models and data that the tiny recipe expects."""
    from verl_rsim.data.prepare import prepare
    from verl_rsim.data.prepare_models import prepare_tiny

    folder = tmp_path_factory.mktemp("home")
    prepare_tiny(folder / "models/tiny-llama", "llama", 0)
    prepare_tiny(folder / "models/tiny-qwen2", "qwen2", 1)
    prepare(folder / "data/arithmetic", "arithmetic", train=32, test=8)
    prepare(folder / "data/humaneval", "humaneval", train=32, test=8)
    return folder


@pytest.fixture(scope="session")
def tokenizers(home: Path) -> dict:
    """The two tiny families' tokenizers: different vocabularies, special tokens and chat templates."""
    from transformers import AutoTokenizer

    return {name: AutoTokenizer.from_pretrained(home / f"models/tiny-{name}") for name in ("llama", "qwen2")}


class LetterTokenizer:
    """One token a character; the smallest tokenizer of the Hugging Face interface."""

    eos_token_id = 0
    unk_token_id = None
    name_or_path = "letters"

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [0 if letter == "␄" else ord(letter) for letter in text]

    def decode(self, ids, skip_special_tokens: bool = False) -> str:
        shown = [i for i in ids if i or not skip_special_tokens]
        return "".join("␄" if i == 0 else chr(i) for i in shown)

    def convert_tokens_to_ids(self, token: str) -> int:
        return ord(token)

    def apply_chat_template(self, messages, tokenize=False, add_generation_prompt=True, **_) -> str:
        text = "".join(f"<{m['role'][0]}>{m['content']}{'␄' if m['role'] == 'assistant' else ''}" for m in messages)
        return text + ("<a>" if add_generation_prompt else "")


@pytest.fixture(scope="session")
def letters():
    """A codec over :class:`LetterTokenizer`."""
    from verl_rsim.core.prompts import Codec

    return Codec(LetterTokenizer(), frozenset({0}))


@pytest.fixture(scope="session")
def documented() -> Callable[..., dict[str, re.Pattern]]:
    """The names in the tables of docs/metrics.md, each with the pattern of what it stands for."""
    page = (ROOT / "docs/metrics.md").read_text()

    def read(before: str | None = None) -> dict[str, re.Pattern]:
        text = page.partition(before)[0] if before else page
        cells = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
        names = [name for cell in cells for name in re.findall(r"`(.*?)`", cell)]
        return {name: _pattern(name) for name in names}

    return read


def _pattern(name: str) -> re.Pattern:
    from verl_rsim.core.strategies import STRATEGIES

    parts = {"role": "(planner|reasoner)", "strategy": f"({'|'.join(s.name for s in STRATEGIES)})", "turn": r"\d+"}
    pattern = re.escape(name).replace(r"\*", ".+")
    return re.compile(re.sub(r"\\{(\w+)\\}", lambda found: parts.get(found[1], r"\w+"), pattern))
