"""Lists the options by which commands load and play two models, once for ``eval`` and ``serve``."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from verl_rsim.utils.errors import ConfigError

if TYPE_CHECKING:
    from verl_rsim.evaluation.config import ModelConfig

MODEL_HELP = "Hugging Face folder or id, checkpoint global_step_N, or URL of a server with /v1/completions"
AS_TRAINED = "default: as the planner was trained"


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """Holds the options; a rule that is None is the planner's own."""

    max_turns: Annotated[int | None, typer.Option(help=f"Most turns of an episode; {AS_TRAINED}, else 6")] = None
    max_step_tokens: Annotated[int | None, typer.Option(help=f"Most tokens of a step; {AS_TRAINED}, else 128")] = None
    max_answer_tokens: Annotated[
        int | None, typer.Option(help=f"Most tokens of the final answer; {AS_TRAINED}, else 128")
    ] = None
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a prompt; default: all that the context leaves")
    ] = None
    injection: Annotated[str | None, typer.Option(help=f"inline or chat; {AS_TRAINED}, else inline")] = None
    delimiter: Annotated[str | None, typer.Option(help=f"Text that ends a step; {AS_TRAINED}, else an empty line")] = (
        None
    )
    planner_decoding: Annotated[
        str | None, typer.Option(help=f"constrained or free; {AS_TRAINED}, else constrained")
    ] = None
    template: Annotated[
        str | None, typer.Option(help=f"Arguments of both chat templates, as JSON; {AS_TRAINED}, else none")
    ] = None
    context: Annotated[int, typer.Option(help="Most tokens of a row; a model's own limit may be lower")] = 8192
    planner_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a planner behind a URL")] = None
    reasoner_tokenizer: Annotated[str | None, typer.Option(help="Tokenizer of a reasoner behind a URL")] = None
    engine: Annotated[str, typer.Option(help="Arguments of vLLM's AsyncEngineArgs, as JSON")] = "{}"

    def given_rules(self) -> dict[str, Any]:
        """Returns the rules that the user gave, as :func:`verl_rsim.evaluation.trained_rules.resolve_rules` takes them.

        Raises:
            ConfigError: the chat template's arguments are no JSON object.
        """
        from verl_rsim.evaluation.trained_rules import RULE_NAMES, TEMPLATE

        given = {name: getattr(self, name) for name in RULE_NAMES if getattr(self, name) is not None}
        if self.template is not None:
            given[TEMPLATE] = parse_json_option("template", self.template)
        return given

    def planner(self, path: str) -> ModelConfig:
        """Returns the settings of a planner."""
        return self._model(path, self.planner_tokenizer)

    def reasoner(self, path: str) -> ModelConfig:
        """Returns the settings of a reasoner."""
        return self._model(path, self.reasoner_tokenizer)

    def _model(self, path: str, tokenizer: str | None) -> ModelConfig:
        from verl_rsim.evaluation.config import ModelConfig

        options = parse_json_option("engine", self.engine)
        return ModelConfig(path, tokenizer, engine_options=options, context=self.context)


def takes_play_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of :class:`PlayOptions` in place of its parameter ``play``."""
    own = get_type_hints(command, include_extras=True)
    added = get_type_hints(PlayOptions, include_extras=True)
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != "play":
            parameters.append(_keyword(parameter.name, own[parameter.name], parameter.default))
            continue
        for item in fields(PlayOptions):
            parameters.append(_keyword(item.name, added[item.name], item.default))

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        play = {name: values.pop(name) for name in added}
        command(**values, play=PlayOptions(**play))

    # typer reads a command's options from these two.
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parse_json_option(key: str, text: str) -> dict[str, Any]:
    """Parses the value of an option that holds a JSON object.

    Raises:
        ConfigError: the text is not a JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(key, text, 'must be a JSON object, e.g. {"enable_thinking": false}')
    return value
