"""Planner and reasoner as values: a codec, and the engine that continues its token ids.

Models are Hugging Face folders or ids, checkpoints of this project, or endpoints. Weights are loaded when a model is
first asked to write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jinja2 import TemplateError

from verl_rsim.core.dialogue import Episode
from verl_rsim.core.prompts import Codec, Message, eos_ids
from verl_rsim.evaluation.engines.base import Engine, EngineSampler, Sampling
from verl_rsim.evaluation.engines.http import HttpEngine, is_url
from verl_rsim.evaluation.engines.vllm import VllmEngine
from verl_rsim.evaluation.rules import Rules
from verl_rsim.training.checkpoint.export import export_policies
from verl_rsim.training.checkpoint.store import FOLDERS, STATE, read_state
from verl_rsim.utils.artifact_folders import build_folder, home
from verl_rsim.utils.errors import ConfigError

MAX_CONTEXT = 8192
"""Tokens a row may have by default; less where the model takes less."""

AnyPlayer = TypeVar("AnyPlayer", bound="Player")


@dataclass(frozen=True)
class Player:
    """A model that takes part in an episode.

    Attributes:
        source: as the user named it.
        folder: the weights on this machine, None behind an endpoint.
        codec: its tokenizer and chat template.
        engine: continues its token ids.
    """

    role: ClassVar[str]
    source: str
    folder: Path | None
    codec: Codec
    engine: Engine

    @classmethod
    def from_pretrained(
        cls: type[AnyPlayer],
        source: str | Path,
        *,
        tokenizer: str | None = None,
        context: int = MAX_CONTEXT,
        template_kwargs: Mapping[str, Any] | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> AnyPlayer:
        """Find a model and read its tokenizer.

        Args:
            source: a Hugging Face folder or id; a name below ``$RSIM_HOME/models``; a checkpoint ``global_step_N``
                (merged once, into a folder below ``$RSIM_HOME/exported``); or the URL of a server with
                ``/v1/completions``.
            tokenizer: of an endpoint that does not say which model it serves, or says a name that cannot be found here.
            context: most tokens of prompt and continuation together.
            template_kwargs: of the chat template, e.g. ``{"enable_thinking": False}``.
            engine_options: of vLLM's ``AsyncEngineArgs``, e.g. ``{"tensor_parallel_size": 4}``.

        Raises:
            ConfigError: no such model, or one without tokenizer or chat template.
            EngineError: the endpoint cannot be reached, or cannot continue token ids exactly.
        """
        source = str(source)
        engine: Engine
        if is_url(source):
            engine = http = HttpEngine(source)
            folder, home_of_codec = None, tokenizer or http.model.root or http.model.id
            known = http.context
        else:
            folder = resolve(source, cls.role)
            home_of_codec = str(folder or source)
        codec, known_locally = load_codec(home_of_codec, cls.role, is_url(source), template_kwargs)
        if is_url(source):
            http.check(codec, labels=cls is Planner)
            http.context = min(context, known or known_locally or context)
        else:
            engine = VllmEngine(home_of_codec, min(context, known_locally or context), options=engine_options)
        return cls(source, folder, codec, engine)

    def sampler(self, sampling: Sampling, seed: str | None = None) -> EngineSampler:
        """The dialogue's ``Generate`` for one episode."""
        return EngineSampler(self.engine, sampling, seed)

    async def close(self) -> None:
        """Free the model's memory."""
        await self.engine.close()


class Planner(Player):
    """Chooses strategies."""

    role = "planner"


class Reasoner(Player):
    """Writes steps and answers."""

    role = "reasoner"


def resolve(source: str, role: str) -> Path | None:
    """The folder of a model that lies on this machine; None for a Hugging Face id.

    Raises:
        ConfigError: it looks like a path, and there is no model.
    """
    folder = Path(source).expanduser()
    for place in (folder, home() / "models" / folder):
        if (place / "config.json").is_file():
            return place.absolute()
    if folder.name.startswith("global_step_") or (folder / STATE).is_file():
        return exported(folder, role)
    if folder.exists() or source.startswith(("/", ".", "~")) or source.count("/") > 1:
        fix = "there is no model here (no config.json); name a Hugging Face folder or id, a global_step_N or a URL"
        raise ConfigError(role, source, fix)
    return None


def exported(checkpoint: Path, role: str) -> Path:
    """A checkpoint's policy as a Hugging Face folder; merged at the first call, found at the next.

    Raises:
        ConfigError: no complete checkpoint, or the policy was frozen in it.
        DataError: verl's merger failed.
    """
    saved = read_state(checkpoint)
    policy = saved.policy_of(role)
    if policy not in saved.trained:
        fix = f"this run trained the {' and the '.join(saved.trained)} only; name the {role}'s own model"
        raise ConfigError(role, str(checkpoint), fix)
    state = checkpoint.absolute() / STATE
    source = f"{state} {state.stat().st_mtime_ns}"
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
    """A model's codec, as training builds it, and the tokens it takes if its config says so.

    Raises:
        ConfigError: the tokenizer cannot be loaded or has no chat template.
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
    if tokenizer.chat_template is None:
        raise ConfigError(key, folder, "its tokenizer has no chat template; use an instruction-tuned model")
    try:
        generation = GenerationConfig.from_pretrained(folder)
    except OSError:  # the model ships none
        generation = None
    codec = Codec(tokenizer, eos_ids(tokenizer, config, generation), dict(template_kwargs or {}))
    _check_template(codec, key, folder)
    return codec, getattr(config, "max_position_embeddings", None)


def _check_template(codec: Codec, key: str, folder: str) -> None:
    probe = "What is 12 + 30?"
    try:
        shown = codec.render([{"role": "user", "content": probe}])
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(key, folder, f"its chat template fails ({error}); see the option template") from error
    if probe not in shown:
        raise ConfigError(key, folder, "its chat template leaves the question out; use an instruction-tuned model")


async def play(
    question: str | Sequence[Message],
    planner: Planner,
    reasoner: Reasoner,
    rules: Rules | None = None,
    sampling: Sampling | None = None,
    seed: str | None = None,
) -> Episode:
    """One episode, by the same rules as in training; the models are loaded at the first call.

    Args:
        question: the user's message, or a whole chat that ends with one.
        rules: bounds; the defaults are those of training.
        sampling: of both models; greedy by default.
        seed: makes the samples repeatable.

    Returns:
        The episode: strategies, steps, token ids and why it ended. Use one event loop for all calls of a model.

    Raises:
        ConfigError: the rules do not fit the models, or the planner has no strategy labels.
        EngineError: a model failed.
    """
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    sampling, rules = sampling or Sampling(), rules or Rules()
    dialogue = rules.dialogue(planner.codec, planner.engine.context, reasoner.codec, reasoner.engine.context)
    return await dialogue.play(messages, planner.sampler(sampling, seed), reasoner.sampler(sampling, seed))
