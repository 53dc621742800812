"""Holds and checks the settings of ``verl-rsim eval`` and ``transfer``, and builds the models they name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.core.policy_description import PolicyDescription, TrainedRules
from verl_rsim.core.rules import Rules
from verl_rsim.evaluation.conditions import ConditionPlayer, SamplingSettings
from verl_rsim.evaluation.engines.base import Engine, Sampling
from verl_rsim.evaluation.engines.vllm import VllmEngine
from verl_rsim.evaluation.models import MAX_CONTEXT, AnyModel, LanguageModel, Planner, Reasoner, describe_model
from verl_rsim.reward.config import ScoringConfig
from verl_rsim.utils.artifact_folders import home
from verl_rsim.utils.errors import ConfigError

GPU_MEMORY_SHARE = 0.9
"""Share of a GPU's memory for all models of an evaluation together."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Names a model and how to load it; see :meth:`verl_rsim.evaluation.models.LanguageModel.from_pretrained`.

    Raises:
        ConfigError: ``context`` is not a positive whole number.
    """

    path: str
    tokenizer: str | None = None
    template_kwargs: Mapping[str, Any] | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    context: int = MAX_CONTEXT

    def __post_init__(self) -> None:
        if type(self.context) is not int or self.context < 1:
            raise ConfigError("context", self.context, "must be a whole number >= 1")

    def describe(self, role: str) -> PolicyDescription | None:
        """Returns how the model was trained, or None if it does not say so."""
        return describe_model(self.path, role, self.tokenizer)

    def with_rules(self, trained: TrainedRules, role: str) -> ModelConfig:
        """Returns the model with the chat template's arguments of a training, unless it has its own."""
        if self.template_kwargs is not None:
            return self
        return dataclasses.replace(self, template_kwargs=trained.template_kwargs[role])

    def load(self, cls: type[AnyModel]) -> AnyModel:
        """Finds the model and reads its tokenizer; the weights are loaded later."""
        return cls.from_pretrained(
            self.path,
            tokenizer=self.tokenizer,
            context=self.context,
            template_kwargs=self.template_kwargs,
            engine_options=self.engine_options,
        )


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """Holds the settings of an evaluation.

    Attributes:
        samples: answers per question and condition (k).
        temperature, top_p: sampling parameters of both models.
        planner_temperature: temperature of the planner; None for ``temperature``.
        seed: seed of all sampling and of the report's statistics.
        limit: number of questions to play from the start of the file; None for all.
        concurrency: episodes played at once.
        rules: bounds of an episode.
        scoring: settings as in the block ``rsim.scoring`` of training.
        fusion_url: URL of the sandbox service; needed if ``scoring.sandbox`` is "fusion".

    Raises:
        ConfigError: a value is out of range.
    """

    samples: int = 1
    temperature: float = 0.0
    planner_temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0
    limit: int | None = None
    concurrency: int = 32
    rules: Rules = field(default_factory=Rules)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    fusion_url: str | None = None

    def __post_init__(self) -> None:
        for key in ("samples", "concurrency", "limit"):
            value = getattr(self, key)
            if value is None and key == "limit":
                continue
            if type(value) is not int or value < 1:
                raise ConfigError(key, value, "must be a whole number >= 1")
        for key in ("temperature", "planner_temperature"):
            value = getattr(self, key)
            if value is None and key == "planner_temperature":
                continue
            if not _is_number(value) or value < 0:
                raise ConfigError(key, value, "must be a number >= 0")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ConfigError("top_p", self.top_p, "must be in (0, 1]")
        if type(self.seed) is not int:
            raise ConfigError("seed", self.seed, "must be a whole number")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError("samples", self.samples, "at temperature 0 all are equal; set temperature, e.g. 0.7")

    @property
    def sampling(self) -> SamplingSettings:
        """Sampling parameters of both models, and the seed."""
        planner = self.temperature if self.planner_temperature is None else self.planner_temperature
        return SamplingSettings(
            reasoner=Sampling(self.temperature, self.top_p), planner=Sampling(planner, self.top_p), seed=self.seed
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def build_condition_player(
    reasoner: Reasoner,
    planners: Mapping[str, Planner],
    controls: Sequence[str],
    settings: EvaluationSettings,
    engines_at_once: int | None = None,
) -> ConditionPlayer:
    """Builds the player of an evaluation's conditions, with engines shared as in :func:`share_engines`."""
    shared = share_engines({"reasoner": reasoner, **planners}, engines_at_once)
    return ConditionPlayer(
        shared["reasoner"],  # type: ignore[arg-type]
        {name: shared[name] for name in planners},  # type: ignore[misc]
        controls,
        settings.rules,
        settings.sampling,
    )


def share_engines(models: Mapping[str, LanguageModel], engines_at_once: int | None = None) -> dict[str, LanguageModel]:
    """Gives models with the same weights one engine, and divides the GPU's memory among the engines of this machine.

    Args:
        models: models by name.
        engines_at_once: number of engines that share the memory; None for those of ``models``.

    Returns:
        The models with their engines, by name.
    """
    engines: dict[str, Engine] = {}
    shared = {name: _with_shared_engine(model, engines) for name, model in models.items()}
    local = [engine for engine in engines.values() if isinstance(engine, VllmEngine)]
    for engine in local:
        engine.memory_share = GPU_MEMORY_SHARE / (engines_at_once or len(local))
    return shared


def _with_shared_engine(model: LanguageModel, engines: dict[str, Engine]) -> LanguageModel:
    """Returns the model with the engine of the first equal one in ``engines``, or adds its own to them."""
    options = getattr(model.engine, "options", None)
    key = json.dumps([model.engine.name, model.engine.context, options], sort_keys=True, default=str)
    return dataclasses.replace(model, engine=engines.setdefault(key, model.engine))


def default_folder(fixed: Mapping[str, Any]) -> Path:
    """Returns the default folder of an evaluation, named by a hash so that the same evaluation continues there."""
    text = json.dumps(fixed, sort_keys=True)
    return home() / "evals" / hashlib.sha256(text.encode()).hexdigest()[:12]
