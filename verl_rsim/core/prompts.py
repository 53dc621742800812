"""Writes the prompts of both models and converts text to token ids.

Text is encoded once, when it is appended, and never again: re-encoding a whole conversation could merge tokens across
its parts, and training would then see other ids than the servers did. Control tokens that are spelled in data or in a
model's text are encoded as text. Works with any tokenizer of the Hugging Face interface; imports neither transformers
nor torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from verl_rsim.core.strategies import LABELS, STRATEGIES
from verl_rsim.utils.errors import ConfigError

Message = Mapping[str, Any]

PLANNER_PROMPT = """You direct a reasoner that solves a problem step by step. Before each step you choose its strategy \
by number. The reasoner's steps appear between your numbers; you never solve the problem yourself.

Strategies:
{menu}

The problem that the reasoner solves:
<problem>
{question}
</problem>

Answer each "Next strategy:" with one number from 1 to 9."""

CUE = "Next strategy:\n"
"""The text before every choice, the first one included."""

OBSERVATION = "\n{step}\n\n" + CUE
"""The step that the reasoner wrote under the last choice, as a constrained planner reads it."""

_QUESTION, _ANSWER, _NEXT = "Qquestionq", "Aanswera", "Nnextn"
"""Contents that no chat template contains: they mark where a template puts its messages."""
_SPLIT = "\ufdd0"
"""Marks a place at which text is encoded in two parts; Unicode keeps this code point out of texts."""
_SENTINELS = ("\n", ":")
"""Texts behind which a continuation is encoded, for tokenizers that treat the beginning of a text differently."""


def check_content(messages: Sequence[Message]) -> None:
    """Checks that each message of a question holds text.

    Raises:
        ValueError: a message has no content, or its content is not text.
    """
    for number, message in enumerate(messages, 1):
        if message.get("content") is None:
            role = message.get("role")
            raise ValueError(f"message {number} of this question ({role=}) has no content; an episode needs its text")
        if not isinstance(message["content"], str):
            raise ValueError(f"an episode is text, and a message of this question holds {message['content']!r:.200}")


def planner_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Returns the planner's chat for a dataset row: the menu, and the row's whole conversation as the problem.

    Args:
        messages: the row's ``prompt``, as verl's dataset gives it. With more than one message each is quoted with its
            role.

    Raises:
        ValueError: a message has no content, or its content is not text.
    """
    check_content(messages)
    if len(messages) == 1:
        question = messages[0]["content"].strip()
    else:
        question = "\n\n".join(f"{message['role'].capitalize()}: {message['content'].strip()}" for message in messages)
    menu = "\n".join(f"{label} {s.title}: {s.description}" for label, s in zip(LABELS, STRATEGIES, strict=True))
    return [{"role": "user", "content": PLANNER_PROMPT.format(menu=menu, question=question)}]


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """Returns the chat with a leading system message merged into the first user message, in front of its text."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


@dataclass(frozen=True, slots=True)
class Codec:
    """Converts text to token ids and back for one model.

    Attributes:
        tokenizer: a tokenizer with the Hugging Face interface and a chat template.
        eos_ids: token ids at which this model's generation ends.
        template_kwargs: extra arguments of the chat template.
        vocabulary: number of token ids that the model knows, from 0 on; None if unknown.
        merge_system: a system message that the chat template refuses or hides is merged into the first user message.
    """

    tokenizer: Any
    eos_ids: frozenset[int]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: int | None = None
    merge_system: bool = True
    _known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def encode(self, text: str) -> tuple[int, ...]:
        """Returns the ids of ``text`` as a continuation of other text.

        No special tokens are added. Those in the text are kept, except in what :meth:`literal` returned.
        """
        ids: list[int] = []
        for part in text.split(_SPLIT):
            ids += self._continuation(part)
        return tuple(ids)

    def literal(self, text: str) -> str:
        """Returns ``text`` marked so that control tokens that it spells are encoded as text."""
        text = text.replace(_SPLIT, "")
        pattern = self._control_tokens()
        return pattern.sub(_split_token, text) if pattern else text

    def _control_tokens(self) -> re.Pattern[str] | None:
        """Returns a pattern of the vocabulary's control tokens, or None if it has none."""
        if "control" not in self._known:
            added = getattr(self.tokenizer, "added_tokens_decoder", {})  # tokenizers of tests have no added tokens
            spelled = {str(token) for token in added.values() if token.special and len(str(token)) > 1}
            longest_first = sorted(spelled, key=len, reverse=True)
            self._known["control"] = re.compile("|".join(map(re.escape, longest_first))) if spelled else None
        return self._known["control"]

    def _encode(self, text: str) -> list[int]:
        """Returns the ids of ``text`` as the beginning of a text; an empty text has none."""
        return list(self.tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _continuation(self, text: str) -> list[int]:
        """Returns the ids of ``text`` behind other text: without the marker that SentencePiece puts before a text."""
        if not self._marks_beginning():
            return self._encode(text)
        for sentinel in _SENTINELS:
            before = self._encode(sentinel)
            ids = self._encode(sentinel + text)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._encode(text)

    def _marks_beginning(self) -> bool:
        """Returns True if the tokenizer encodes a word differently at the beginning of a text (SentencePiece)."""
        if "beginning" not in self._known:
            sentinel = _SENTINELS[0]
            behind = self._encode(sentinel + _ANSWER)[len(self._encode(sentinel)) :]
            self._known["beginning"] = behind != self._encode(_ANSWER)
        return self._known["beginning"]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ``ids`` without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> str:
        """Returns a conversation as text under the model's chat template.

        Raises:
            TemplateError: the template refuses the messages.
        """
        return self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=generate,
            **self.template_kwargs,
        )

    def takes_system(self) -> bool:
        """Returns True if the chat template shows a system message; some refuse it (Gemma 2), some leave it out."""
        if "system" not in self._known:
            chat = [{"role": "system", "content": _NEXT}, {"role": "user", "content": _QUESTION}]
            try:
                self._known["system"] = _NEXT in self.render(chat)
            except TemplateError:
                self._known["system"] = False
        return self._known["system"]

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """Returns a question's messages as the chat template takes them; their contents are data, not control tokens.

        Raises:
            ValueError: a message has no content, or its content is not text.
        """
        check_content(messages)
        if self.merge_system and messages[0]["role"] == "system" and not self.takes_system():
            messages = merge_system(messages)
        return [{**message, "content": self.literal(message["content"])} for message in messages]

    def chat(self, messages: Sequence[Message], *, open_end: bool = False, begin: str = "") -> tuple[int, ...]:
        """Returns the ids of a conversation that ends where the assistant begins to write.

        With ``open_end`` they end with the last message's content instead, so that more text can follow it. ``begin``
        is text with which the assistant's message begins.
        """
        messages = self.conversation(messages)
        if open_end:
            *earlier, last = messages
            rendered = self.render([*earlier, {**last, "content": last["content"] + _NEXT}])
            rendered = rendered[: rendered.rindex(_NEXT)]
        else:
            rendered = self.render(messages) + begin
        first, *rest = rendered.split(_SPLIT)
        return (*self._encode(first), *self.encode(_SPLIT.join(rest)))

    def user_turn(self) -> tuple[str, str]:
        """Returns the template's text before and after a user message that follows an assistant message.

        Raises:
            ValueError: the chat template does not keep the messages apart or in order.
        """
        conversation = [
            {"role": "user", "content": _QUESTION},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": _NEXT},
        ]
        rendered = self.render(conversation)
        answer, following = rendered.find(_ANSWER), rendered.find(_NEXT)
        if not 0 <= answer < following:
            raise ValueError("the chat template hides earlier messages")
        return rendered[answer + len(_ANSWER) : following], rendered[following + len(_NEXT) :]

    def without_end_of_turn(self, text: str) -> str:
        """Removes a leading end-of-turn token, which a generation that ended by itself already brought along."""
        for token in self.eos_ids:
            end = self.tokenizer.decode([token])
            if end and text.startswith(end):
                return text.removeprefix(end)
        return text

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


def _split_token(token: re.Match[str]) -> str:
    """Returns a control token with a split behind its first character: neither part is a control token."""
    return token[0][0] + _SPLIT + token[0][1:]


def eos_ids(tokenizer: Any, *configs: Any) -> frozenset[int]:
    """Returns all end-of-sequence ids of a model, from its tokenizer and its configs (each an id or a list of ids)."""
    found: set[int] = set()
    for source in (tokenizer, *configs):
        value = getattr(source, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)
