"""Checks that a model's tokenizer and chat template write an episode as the model's own conversations look.

An episode that the template would never have written still runs: the model only plays worse. Therefore each check looks
for one kind of mismatch before anything is started.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from verl_rsim.core.prompts import Codec, Message
from verl_rsim.utils.errors import ConfigError

_QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
_ANSWER = "4"
_ROUND_TRIP = "Let me check.\n\n  x = 1, naïve 数学\n"
_THINKING_ARGUMENTS = ("enable_thinking", "thinking")
"""Arguments by which chat templates leave the thinking out."""


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """Names the settings that a finding may blame.

    Attributes:
        role: "planner" or "reasoner".
        model_key, model: key and value of the model.
        arguments_key: key of the chat template's arguments; an argument is set as ``{arguments_key}.NAME=VALUE``,
            in hydra with a leading ``+``.
        own_template: how to give the model another chat template, in the imperative.
        merge_system: the setting that has refused system messages merged.
    """

    role: str
    model_key: str
    model: str
    arguments_key: str
    own_template: str
    merge_system: str


@dataclass(frozen=True, slots=True)
class TemplateFinding:
    """Holds one mismatch between a model and the dialogue.

    Attributes:
        key, value: the setting to blame.
        details: what is wrong, and what to do.
        refused: True if episodes would be wrong; False if they would only be a little unusual.
    """

    key: str
    value: object
    details: str
    refused: bool

    def error(self) -> ConfigError:
        """Returns the finding as an error."""
        return ConfigError(self.key, self.value, self.details)


Rows = Mapping[str, Sequence[Sequence[Message]]]
"""Questions by the setting that names their dataset."""


def check_template(codec: Codec, rows: Rows, names: TemplateSettings) -> list[TemplateFinding]:
    """Checks a model's tokenizer and chat template.

    Args:
        codec: the model's codec.
        rows: questions of the datasets, one for each sequence of roles that occurs there; a planner needs none, since
            it reads every question inside one user message.
        names: the settings to name in findings.

    Returns:
        The mismatches, most serious kind first; empty if there is none.
    """
    if getattr(codec.tokenizer, "chat_template", "") is None:
        return [_refuse_model(names, f"its tokenizer has no chat template; name an instruction-tuned model, "
                                     f"or {names.own_template}")]  # fmt: skip
    try:
        shown = _QUESTION[0]["content"] in codec.render(_QUESTION)
    except (TemplateError, TypeError, ValueError) as error:
        details = f"its chat template fails on one user message ({_first_line(error)}); {names.own_template}"
        return [_refuse_model(names, details)]
    if not shown:
        return [_refuse_model(names, f"its chat template leaves the question out; {names.own_template}")]
    return [*_check_round_trip(codec, names), *_check_answer(codec, names), *_check_rows(codec, rows, names)]


def _refuse_model(names: TemplateSettings, details: str) -> TemplateFinding:
    return TemplateFinding(names.model_key, names.model, details, refused=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_round_trip(codec: Codec, names: TemplateSettings) -> Iterator[TemplateFinding]:
    """Checks that text survives the tokenizer: steps are read by the planner and by graders as decoded text."""
    decoded = codec.decode(codec.encode(_ROUND_TRIP))
    if decoded != _ROUND_TRIP:
        details = (
            f"its tokenizer changes text ({_ROUND_TRIP!r} becomes {decoded!r}), so that steps would lose spaces, lines "
            "or characters; set tokenizer_class in its tokenizer_config.json to the class that it was trained with "
            "(PreTrainedTokenizerFast reads tokenizer.json as it is)"
        )
        yield _refuse_model(names, details)


def _check_answer(codec: Codec, names: TemplateSettings) -> Iterator[TemplateFinding]:
    """Checks that the prompt ends where the template puts the text of an answer."""
    mismatch = _answer_mismatch(codec)
    if mismatch is None:
        return
    if mismatch == "":
        details = (
            "its chat template puts other white space before an answer than its generation prompt does; harmless, "
            "since the tokens around it are the same"
        )
        yield TemplateFinding(names.model_key, names.model, details, refused=False)
        return
    arguments = dict(codec.template_kwargs)
    for name in _THINKING_ARGUMENTS:
        mended = dataclasses.replace(codec, template_kwargs={**arguments, name: False}, _known={})
        if _answer_mismatch(mended) in (None, ""):
            details = f"{mismatch}; set {names.arguments_key}.{name}=False"
            yield TemplateFinding(names.arguments_key.lstrip("+"), arguments, details, refused=True)
            return
    yield _refuse_model(names, f"{mismatch}; name another model, or {names.own_template}")


def _answer_mismatch(codec: Codec) -> str | None:
    """Returns why an answer does not follow the generation prompt; "" for white space alone, None if it follows."""
    answered = [*_QUESTION, {"role": "assistant", "content": _ANSWER}]
    try:
        prompt, whole = codec.render(_QUESTION), codec.render(answered, generate=False)
    except (TemplateError, TypeError, ValueError) as error:
        return f"its chat template refuses an assistant message ({_first_line(error)})"
    if whole.startswith((prompt + _ANSWER, f"{prompt} {_ANSWER}")):
        return None
    if whole.startswith(prompt.rstrip()) and whole[len(prompt.rstrip()) :].lstrip().startswith(_ANSWER):
        return ""
    if prompt.rfind("<think>") > prompt.rfind("</think>"):
        return "its generation prompt opens <think>, so that labels and steps would stand inside the thinking"
    if whole.startswith(prompt):
        before = whole[len(prompt) :].partition(_ANSWER)[0]
        return f"its chat template writes {before!r} between its generation prompt and an answer"
    return f"its generation prompt ends with {prompt[-40:]!r}, and in its conversations no answer follows that"


def _check_rows(codec: Codec, rows: Rows, names: TemplateSettings) -> Iterator[TemplateFinding]:
    """Checks that the template takes the roles of the datasets' questions and shows every message."""
    questions = [(key, question) for key in rows for question in rows[key]]
    if any(_begins_with_system(question) for _, question in questions) and not codec.takes_system():
        merged = "its chat template takes no system message"
        if not codec.merge_system:
            yield _refuse_model(names, f"{merged}, and the dataset has some; {names.merge_system}, or drop them")
            return
        details = f"{merged}: those of the dataset are merged into the first user message ({names.merge_system})"
        yield TemplateFinding(names.model_key, names.model, details, refused=False)
    for key, question in questions:
        yield from _check_question(codec, key, question, names.role)


def _check_question(codec: Codec, key: str, question: Sequence[Message], role: str) -> Iterator[TemplateFinding]:
    roles = ", ".join(str(message.get("role")) for message in question)
    template = f"the {role}'s chat template"
    try:
        messages = codec.conversation(question)
        rendered = codec.render(messages)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        reason = f"{template} refuses a question with these roles ({_first_line(error)})"
        fix = "give its messages the roles user and assistant in turn, or name another model"
        yield TemplateFinding(key, roles, f"{reason}; {fix}", refused=True)
        return
    for message in messages:
        if message["content"].strip() not in rendered:
            details = f"{template} leaves out a question's message of the role {message['role']}; drop that message"
            yield TemplateFinding(key, roles, details, refused=True)
            return


def _begins_with_system(row: Sequence[Message]) -> bool:
    return bool(row) and row[0].get("role") == "system"
