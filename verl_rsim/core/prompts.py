"""Writes the prompts of both models and converts text to token ids.

Text is encoded once, when it is appended, and never again: re-encoding a whole conversation could merge tokens across
its parts, and training would then see other ids than the servers did. Works with any tokenizer of the Hugging Face
interface; imports neither transformers nor torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.strategies import LABELS, STRATEGIES
from verl_rsim.utils.errors import ConfigError

Message = Mapping[str, Any]

PLANNER_PROMPT = """You direct a reasoner that solves a problem step by step. Before each step you choose its strategy.

Strategies:
{menu}

Problem:
{question}

Answer with the number of the next strategy."""

OBSERVATION = "\n{step}\n\nNext strategy:\n"
"""The step that the reasoner wrote under the last choice, as the planner reads it."""

_QUESTION, _ANSWER, _NEXT = "Qquestionq", "Aanswera", "Nnextn"
"""Contents that no chat template contains: they mark where a template puts its messages."""


def planner_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Returns the planner's chat for a dataset row: the menu, and the row's whole conversation as the problem.

    Args:
        messages: the row's ``prompt``, as verl's dataset gives it.

    Raises:
        ValueError: a content is not text.
    """
    for message in messages:
        if not isinstance(message["content"], str):
            raise ValueError(f"an episode is text, and a message of this question holds {message['content']!r:.200}")
    question = "\n\n".join(message["content"].strip() for message in messages)
    menu = "\n".join(f"{label} {s.title}: {s.description}" for label, s in zip(LABELS, STRATEGIES, strict=True))
    return [{"role": "user", "content": PLANNER_PROMPT.format(menu=menu, question=question)}]


@dataclass(frozen=True, slots=True)
class Codec:
    """Converts text to token ids and back for one model.

    Attributes:
        tokenizer: a tokenizer with the Hugging Face interface and a chat template.
        eos_ids: token ids at which this model's generation ends.
        template_kwargs: extra arguments of the chat template.
        vocabulary: number of token ids that the model knows, from 0 on; None if unknown.
    """

    tokenizer: Any
    eos_ids: frozenset[int]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: int | None = None

    def encode(self, text: str) -> tuple[int, ...]:
        """Returns the ids of ``text`` as a continuation: no special tokens are added, those in the text are kept."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ``ids`` without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> str:
        """Returns a conversation as text under the model's chat template."""
        return self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=generate,
            **self.template_kwargs,
        )

    def chat(self, messages: Sequence[Message], *, open_end: bool = False) -> tuple[int, ...]:
        """Returns the ids of a conversation that ends where the assistant begins to write.

        With ``open_end`` they end with the last message's content instead, so that more text can follow it.
        """
        if not open_end:
            return self.encode(self.render(messages))
        *earlier, last = messages
        rendered = self.render([*earlier, {**last, "content": str(last["content"]) + _NEXT}])
        return self.encode(rendered[: rendered.rindex(_NEXT)])

    def user_turn(self) -> tuple[str, str]:
        """Returns the template's text before and after a user message that follows an assistant message.

        Raises:
            ConfigError: the chat template does not keep the messages apart or in order.
        """
        conversation = [
            {"role": "user", "content": _QUESTION},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": _NEXT},
        ]
        rendered = self.render(conversation)
        answer, following = rendered.find(_ANSWER), rendered.find(_NEXT)
        if not 0 <= answer < following:
            raise ConfigError(
                "rsim.injection", "chat", "the reasoner's chat template hides earlier messages; use inline"
            )
        return rendered[answer + len(_ANSWER) : following], rendered[following + len(_NEXT) :]

    def label_ids(self) -> tuple[int, ...]:
        """Returns the token id of each strategy label, in the order of the strategies.

        Raises:
            ConfigError: a label is not one token of its own in this vocabulary.
        """
        ids = []
        for label in LABELS:
            encoded = self.encode(label)
            # A SentencePiece tokenizer may put a space marker before the digit; the vocabulary then has the bare digit.
            known = encoded[0] if len(encoded) == 1 else self.tokenizer.convert_tokens_to_ids(label)
            if known is None or known == self.tokenizer.unk_token_id or self.decode([known]).strip() != label:
                raise ConfigError(
                    "planner.model.path",
                    getattr(self.tokenizer, "name_or_path", self.tokenizer),
                    f"its tokenizer has no single token for the strategy label {label!r} (it gives {list(encoded)}); "
                    "use another planner, or rsim.planner_decoding=free",
                )
            ids.append(known)
        return tuple(ids)


def eos_ids(tokenizer: Any, *configs: Any) -> frozenset[int]:
    """Returns all end-of-sequence ids of a model, from its tokenizer and its configs (each an id or a list of ids)."""
    found: set[int] = set()
    for source in (tokenizer, *configs):
        value = getattr(source, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)
