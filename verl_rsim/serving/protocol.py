"""A chat completion request: what is understood, what is ignored, and what is refused rather than ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from verl_rsim.serving.errors import ApiError

IGNORED = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
"""Change nothing about an answer."""

UNSUPPORTED = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""Known to OpenAI's clients and not done here; with the values that ask for nothing, which are accepted, as is null."""

Text = Annotated[str, Field(max_length=256, min_length=1)]


class Strict(BaseModel):
    """Types as they are, unknown fields refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ChatMessage(BaseModel):
    """A message; its content as text."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)  # clients send back what they were sent

    role: Literal["system", "user", "assistant"]
    content: str

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for key in ("tool_calls", "function_call", "audio"):
            if value.get(key):
                raise ValueError(f"{key} is not supported")
        return {**value, "role": "system" if value.get("role") == "developer" else value.get("role")}

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        parts = []
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"only parts of type text are supported, not {str(kind)[:40]!r}")
            parts.append(part["text"])
        return "\n".join(parts)


class StreamOptions(Strict):
    """What a stream holds besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Extension(Strict):
    """The field ``rsim`` of a request.

    Attributes:
        strategies: where they are shown: nowhere, in ``reasoning_content``, or as lines of the answer.
        return_token_ids: of both models, in the response's field ``rsim``.
    """

    strategies: Literal["none", "reasoning_content", "inline"] = "none"
    return_token_ids: bool = False


class ChatRequest(Strict):
    """The body of ``/v1/chat/completions``; bounds that depend on the server are checked there."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=512)]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Annotated[list[Text], Field(max_length=4)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    rsim: Extension = Extension()

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("messages")
    @classmethod
    def _asks(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user" or not messages[-1].content.strip():
            raise ValueError("the last message must be the user's, and say something")
        return messages

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as chat templates take them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def max_written(self) -> int | None:
        """Tokens the reasoner may write for an answer."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def max_name(self) -> str:
        """The field that :attr:`max_written` comes from."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


def parse(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        ApiError: 400, it is no JSON, or a field is wrong, unknown or not supported.
    """
    try:
        raw = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    asked = {key: value for key, value in raw.items() if value is not None and key not in IGNORED}
    for key, nothing in UNSUPPORTED.items():
        if key in asked and asked.pop(key) not in nothing:
            raise ApiError(400, f"{key} is not supported by this server.", param=key, code="unsupported_parameter")
    try:
        return ChatRequest.model_validate(asked)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[1:][:100]
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument: {param}", param=param, code="unknown_parameter")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param}: {first['msg'].removeprefix('Value error, ')}", param=param, code=code)
