"""Loads planners and reasoners and plays episodes with them; a model is a codec and an engine that continues its ids.

Models are Hugging Face folders or ids, checkpoints of this project, or endpoints. Weights are loaded at a model's first
generation.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from verl_rsim.core.episode import Episode
from verl_rsim.core.policy_description import PolicyDescription, find_description
from verl_rsim.core.prompts import Codec, Message, eos_ids
from verl_rsim.core.rules import Rules
from verl_rsim.core.template_check import TemplateSettings, check_template
from verl_rsim.evaluation.engines.base import Engine, EngineSampler, Sampling
from verl_rsim.evaluation.engines.http import HttpEngine, is_url
from verl_rsim.evaluation.engines.vllm import VllmEngine
from verl_rsim.training.checkpoint.export import export_policies
from verl_rsim.training.checkpoint.store import FOLDERS, STATE, read_state
from verl_rsim.utils.artifact_folders import build_folder, home
from verl_rsim.utils.errors import ConfigError

MAX_CONTEXT = 8192
"""Default for the most tokens of a row; a model's own limit may be lower."""

AnyModel = TypeVar("AnyModel", bound="LanguageModel")


@dataclass(frozen=True)
class LanguageModel:
    """Holds a model that plays one role in an episode.

    Attributes:
        role: "planner" or "reasoner".
        source: the model as the user named it.
        folder: folder of the weights on this machine; None for an endpoint or a Hugging Face id.
        codec: tokenizer and chat template of the model.
        engine: continues the model's token ids.
        description: how the model was trained, if its folder says so.
    """

    role: ClassVar[str]
    source: str
    folder: Path | None
    codec: Codec
    engine: Engine
    description: PolicyDescription | None = None

    @classmethod
    def from_pretrained(
        cls: type[AnyModel],
        source: str | Path,
        *,
        tokenizer: str | None = None,
        context: int = MAX_CONTEXT,
        template_kwargs: Mapping[str, Any] | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> AnyModel:
        """Finds a model and reads its tokenizer; the weights are loaded at the first generation.

        Args:
            source: a Hugging Face folder or id; a name below ``$RSIM_HOME/models``; a checkpoint ``global_step_N``
                (merged once, into a folder below ``$RSIM_HOME/exported``); or the URL of a server with
                ``/v1/completions``.
            tokenizer: tokenizer of an endpoint that does not name its model, or names one that is not found here.
            context: most tokens of prompt and continuation together.
            template_kwargs: arguments of the chat template, e.g. ``{"enable_thinking": False}``; None for those with
                which the model was trained.
            engine_options: arguments of vLLM's ``AsyncEngineArgs``, e.g. ``{"tensor_parallel_size": 4}``.

        Raises:
            ConfigError: there is no such model, it has no tokenizer or chat template, or it was trained for the other
                role.
            EngineError: the endpoint cannot be reached, or does not continue token ids exactly.
        """
        source = str(source)
        if is_url(source):
            http = HttpEngine(source)
            model = tokenizer or http.model.root or http.model.id
            description = find_description(model, cls.role)
            codec, model_context = load_codec(model, cls.role, True, _arguments(template_kwargs, cls.role, description))
            http.check(codec, labels=cls is Planner)
            http.context = min(context, http.context or model_context or context)
            return cls(source, None, codec, http, description)
        folder = find_model_folder(source, cls.role)
        model = str(folder or source)
        description = find_description(model, cls.role)
        codec, model_context = load_codec(model, cls.role, False, _arguments(template_kwargs, cls.role, description))
        engine = VllmEngine(model, min(context, model_context or context), options=engine_options)
        return cls(source, folder, codec, engine, description)

    def sampler(self, sampling: Sampling, seed: str | None = None) -> EngineSampler:
        """Returns the dialogue's ``Generate`` of this model for one episode."""
        return EngineSampler(self.engine, sampling, seed)

    async def close(self) -> None:
        """Frees the model's memory."""
        await self.engine.close()


class Planner(LanguageModel):
    """Holds a model that chooses strategies."""

    role = "planner"


class Reasoner(LanguageModel):
    """Holds a model that writes steps and answers."""

    role = "reasoner"


def _arguments(
    given: Mapping[str, Any] | None, role: str, description: PolicyDescription | None
) -> Mapping[str, Any] | None:
    """Returns the chat template's arguments: the given ones, else those of the training."""
    if given is not None or description is None:
        return given
    return description.rules.template_kwargs[role]


def describe_model(source: str, role: str, tokenizer: str | None = None) -> PolicyDescription | None:
    """Returns how a model was trained, or None if it does not say so.

    Args:
        source, tokenizer: as in :meth:`LanguageModel.from_pretrained`. A model behind a URL is described by the folder
            or the id of its tokenizer.
        role: "planner" or "reasoner".

    Raises:
        ConfigError: there is no such model, its description is damaged, or it was trained for the other role.
        EngineError: the endpoint cannot be reached.
    """
    if is_url(source):
        served = HttpEngine(source).model
        return find_description(tokenizer or served.root or served.id, role)
    return find_description(find_model_folder(source, role) or source, role)


def find_model_folder(source: str, role: str) -> Path | None:
    """Returns the folder of a model on this machine, or None if ``source`` is a Hugging Face id.

    Args:
        source: a folder, a name below ``$RSIM_HOME/models``, a checkpoint, or a Hugging Face id.
        role: "planner" or "reasoner".

    Raises:
        ConfigError: ``source`` is a path without a model.
    """
    folder = Path(source).expanduser()
    for place in (folder, home() / "models" / folder):
        if (place / "config.json").is_file():
            return place.absolute()
    if folder.name.startswith("global_step_") or (folder / STATE).is_file():
        return exported_policy(folder, role)
    if folder.exists() or source.startswith(("/", ".", "~")) or source.count("/") > 1:
        fix = "there is no model here (no config.json); name a Hugging Face folder or id, a global_step_N or a URL"
        raise ConfigError(role, source, fix)
    return None


def exported_policy(checkpoint: Path, role: str) -> Path:
    """Returns a checkpoint's policy as a Hugging Face folder; the first call merges it, later ones find it.

    Raises:
        ConfigError: the checkpoint is incomplete, or the role was not trained in it.
        DataError: verl's merger failed.
    """
    saved = read_state(checkpoint)
    policy = saved.policy_of(role)  # one policy may play both roles
    if policy not in saved.trained:
        fix = f"this run trained the {' and the '.join(saved.trained)} only; name the {role}'s own model"
        raise ConfigError(role, str(checkpoint), fix)
    state = checkpoint.absolute() / STATE
    source = f"{state} {state.stat().st_mtime_ns}"  # the time tells apart runs that wrote to the same folder
    folder = home() / "exported" / hashlib.sha256(source.encode()).hexdigest()[:16]

    def write(target: Path) -> None:
        export_policies(checkpoint.absolute(), target)

    if not (checkpoint / FOLDERS[policy]).is_dir():
        raise ConfigError(role, str(checkpoint), f"has no folder {FOLDERS[policy]}; the checkpoint is damaged")
    build_folder(folder, source, write)
    return folder / policy


def load_codec(
    folder: str, role: str, remote: bool, template_kwargs: Mapping[str, Any] | None = None
) -> tuple[Codec, int | None]:
    """Loads a model's codec as training does.

    Args:
        folder: folder or Hugging Face id of the tokenizer.
        role: "planner" or "reasoner", for error messages.
        remote: True if the model is behind an endpoint.
        template_kwargs: arguments of the chat template.

    Returns:
        The codec, and the model's context in tokens (None if its config has none).

    Raises:
        ConfigError: the tokenizer cannot be loaded, or its chat template is missing or unusable.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    key = f"{role}_tokenizer" if remote else role
    fix = "name the folder or id of the endpoint's tokenizer" if remote else "name a Hugging Face folder or id"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(key, folder, f"its tokenizer and config cannot be loaded ({why}); {fix}") from error
    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:  # the model ships none
        generation = None
    codec = Codec(tokenizer, eos_ids(tokenizer, config, generation), dict(template_kwargs or {}))
    _check_template(codec, role, key, folder)
    return codec, getattr(config, "max_position_embeddings", None)


def _check_template(codec: Codec, role: str, key: str, folder: str) -> None:
    """Warns of a chat template that fits the dialogue only roughly.

    Raises:
        ConfigError: the tokenizer or the chat template does not fit the dialogue.
    """
    names = TemplateSettings(
        role=role,
        model_key=key,
        model=folder,
        arguments_key="template_kwargs",
        own_template="set its arguments with the option template, or give its folder another chat_template.jinja",
        merge_system="always, in an evaluation",
    )
    for finding in check_template(codec, {}, names):
        if finding.refused:
            raise finding.error()
        warnings.warn(str(finding.error()), stacklevel=2)


async def play(
    question: str | Sequence[Message],
    planner: Planner,
    reasoner: Reasoner,
    rules: Rules | None = None,
    sampling: Sampling | None = None,
    seed: str | None = None,
) -> Episode:
    """Plays one episode by the same rules as training. The first call loads the models.

    All calls with a model must run in the same event loop.

    Args:
        question: the user's message, or a whole chat that ends with one.
        planner: chooses the strategies.
        reasoner: writes the steps.
        rules: bounds of the episode; None for those with which the planner was trained, if its folder says so, else for
            the defaults of :class:`Rules`.
        sampling: sampling parameters of both models; greedy by default.
        seed: makes the samples repeatable.

    Returns:
        The episode: strategies, steps, token ids, and the reason for which it ended.

    Raises:
        ConfigError: a context is too short for the rules, or the planner's tokenizer has no single token for a label.
        EngineError: a model failed.
    """
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    trained = planner.description.rules.rules if planner.description else Rules()
    sampling, rules = sampling or Sampling(), rules or trained
    dialogue = rules.dialogue(planner.codec, planner.engine.context, reasoner.codec, reasoner.engine.context)
    return await dialogue.play(messages, planner.sampler(sampling, seed), reasoner.sampler(sampling, seed))
