"""Parses chat completion requests, and rejects fields that this server does not support."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from verl_rsim.serving.errors import ApiError

IGNORED_FIELDS = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
"""Fields that are accepted and do not change an answer."""

UNSUPPORTED_FIELDS = {
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
"""Fields of OpenAI's API that this server does not support, each with the values that have no effect and are accepted.

Null is always accepted.
"""

StopString = Annotated[str, Field(max_length=256, min_length=1)]


class StrictModel(BaseModel):
    """Rejects unknown fields and converts no types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ChatMessage(BaseModel):
    """Holds a message of the conversation; content of several text parts is joined by newlines."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)
    """Unknown fields are ignored here: clients send answers back with all fields that they received."""

    role: Literal["system", "user", "assistant"]
    content: str

    @model_validator(mode="before")
    @classmethod
    def _normalize(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for key in ("tool_calls", "function_call", "audio"):
            if value.get(key):
                raise ValueError(f"{key} is not supported")
        return {**value, "role": "system" if value.get("role") == "developer" else value.get("role")}

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        parts = []
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"only parts of type text are supported, not {str(kind)[:40]!r}")
            parts.append(part["text"])
        return "\n".join(parts)


class StreamOptions(StrictModel):
    """Selects what a stream holds besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class RsimOptions(StrictModel):
    """Holds the field ``rsim`` of a request.

    Attributes:
        strategies: place where strategies are shown: nowhere, in ``reasoning_content``, or as lines of the answer.
        return_token_ids: add the token ids of both models to the response's field ``rsim``.
    """

    strategies: Literal["none", "reasoning_content", "inline"] = "none"
    return_token_ids: bool = False


class ChatRequest(StrictModel):
    """Holds the body of ``/v1/chat/completions``.

    Limits that depend on the server are checked by :meth:`verl_rsim.serving.service.Service.check_request`.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=512)]
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Annotated[list[StopString], Field(max_length=4)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    rsim: RsimOptions = RsimOptions()

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("messages")
    @classmethod
    def _check_last_message(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user" or not messages[-1].content.strip():
            raise ValueError("the last message must be the user's and must not be empty")
        return messages

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages in the format of chat templates."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def token_limit(self) -> int | None:
        """Tokens that the reasoner may generate for an answer; None if the request sets no limit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def token_limit_field(self) -> str:
        """Name of the field that :attr:`token_limit` comes from."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


def parse_request(body: bytes) -> ChatRequest:
    """Parses a request.

    Raises:
        ApiError: 400, the body is not JSON, or a field is wrong, unknown or not supported.
    """
    try:
        raw = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    fields = {key: value for key, value in raw.items() if value is not None and key not in IGNORED_FIELDS}
    for key, no_effect in UNSUPPORTED_FIELDS.items():
        if key in fields and fields.pop(key) not in no_effect:
            raise ApiError(400, f"{key} is not supported by this server.", param=key, code="unsupported_parameter")
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _api_error(error) from error


def _api_error(error: ValidationError) -> ApiError:
    """Returns the first of pydantic's errors in OpenAI's format, without the input, which may be long or private."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ""
    for part in first["loc"]:
        param += f"[{part}]" if isinstance(part, int) else f".{part}"
    param = param[1:][:100]
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument: {param}", param=param, code="unknown_parameter")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param}: {first['msg'].removeprefix('Value error, ')}", param=param, code=code)
