"""Reads a question's messages from the forms in which datasets hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIST, PARTS, JSON_TEXT, PLAIN_TEXT = "a list of messages", "content in parts", "JSON text", "plain text"
"""Forms of a question; all but the first are converted before verl reads them."""
_LOOKS_LIKE_MESSAGES = re.compile(r"""\s*\[?\s*\{\s*(['"])(role|content)\1\s*:""")
_EXAMPLE = 'write a list of messages such as [{"role": "user", "content": "..."}]'


class FormError(ValueError):
    """Raised when a value cannot be read; the message says why and what to write instead.

    Args:
        reason: what is wrong, and what to write.
        place: where in the column, such as "[1].content"; empty for the whole value.
        value: what stands at that place.
    """

    def __init__(self, reason: str, place: str = "", value: object = None) -> None:
        super().__init__(reason)
        self.place, self.value = place, value


@dataclass(frozen=True, slots=True)
class Chat:
    """Holds the messages of a question.

    Attributes:
        messages: messages with the keys role and content; each content is text.
        form: how the dataset holds them.
    """

    messages: tuple[dict[str, str], ...]
    form: str


def read_chat(value: Any) -> Chat:
    """Returns the messages of a question.

    Args:
        value: a list of messages, the same as JSON text, or plain text, which becomes one user message. The content of
            a message may be a list of parts of type text, which are joined by newlines.

    Raises:
        FormError: the value is none of these, or an episode could not begin with the messages.
    """
    form = LIST
    if isinstance(value, str):
        value, form = _from_text(value)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise FormError(_EXAMPLE, "", value)
    messages = []
    for number, message in enumerate(value):
        text, has_parts = _read_message(message, f"[{number}]")
        messages.append(text)
        if has_parts and form == LIST:
            form = PARTS
    last = messages[-1]
    if last["role"] != "user":
        raise FormError(
            f"the last message must be the user's, not the {last['role']}'s",
            f"[{len(messages) - 1}].role",
            last["role"],
        )
    if not last["content"].strip():
        raise FormError("the question is empty; give it a text, or drop the row", f"[{len(messages) - 1}].content", "")
    return Chat(tuple(messages), form)


def _from_text(text: str) -> tuple[Any, str]:
    """Returns the messages that a text holds as JSON, or one user message with the text."""
    if not text.strip():
        raise FormError("the question is empty; give it a text, or drop the row", "", text)
    if not _LOOKS_LIKE_MESSAGES.match(text):
        return [{"role": "user", "content": text}], PLAIN_TEXT
    try:
        value = json.loads(text)
    except ValueError:
        # Such a text is most often Python's repr of the messages: as a question it would be shown to the models.
        raise FormError(
            "looks like messages, but is not JSON; write them with json.dumps, or as a list", "", text
        ) from None
    return [value] if isinstance(value, dict) else value, JSON_TEXT


def _read_message(message: Any, place: str) -> tuple[dict[str, str], bool]:
    """Returns a message with its text alone, and whether its content was in parts."""
    if not isinstance(message, Mapping):
        raise FormError(_EXAMPLE, place, message)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise FormError("a message needs a role: system, user or assistant", f"{place}.role", role)
    for key in ("tool_calls", "function_call"):
        if message.get(key):
            raise FormError("an episode has no tools; drop the row", f"{place}.{key}", message[key])
    if isinstance(content, str):
        return {"role": role, "content": content}, False
    if not isinstance(content, Sequence):
        raise FormError("a message needs a text as its content", f"{place}.content", content)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(text, str):
            raise FormError("an episode is text: only parts of type text can be used", f"{place}.content", part)
        texts.append(text)
    return {"role": role, "content": "\n".join(texts)}, True
