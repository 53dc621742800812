"""What ``verl-rsim eval`` and ``transfer`` are asked for, checked as far as it goes before any model is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_rsim.evaluation.conditions import Draw, Table
from verl_rsim.evaluation.engines.base import Engine, Sampling
from verl_rsim.evaluation.engines.vllm import VllmEngine
from verl_rsim.evaluation.models import MAX_CONTEXT, AnyPlayer, Planner, Player, Reasoner
from verl_rsim.evaluation.rules import Rules
from verl_rsim.reward.config import ScoringConfig
from verl_rsim.utils.artifact_folders import home
from verl_rsim.utils.errors import ConfigError

GPU_SHARE = 0.9
"""Of a GPU's memory, for all models of an evaluation together."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model as the user names it; see :meth:`verl_rsim.evaluation.models.Player.from_pretrained`."""

    path: str
    tokenizer: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    context: int = MAX_CONTEXT

    def __post_init__(self):
        if type(self.context) is not int or self.context < 1:
            raise ConfigError("context", self.context, "must be a whole number >= 1")

    def load(self, cls: type[AnyPlayer]) -> AnyPlayer:
        """Find the model and read its tokenizer."""
        return cls.from_pretrained(
            self.path,
            tokenizer=self.tokenizer,
            context=self.context,
            template_kwargs=self.template_kwargs,
            engine_options=self.engine_options,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are drawn, and how many.

    Attributes:
        samples: answers a question and condition.
        temperature, top_p: of both models.
        planner_temperature: of the planner if it is another one.
        seed: of everything random.
        limit: the first so many questions only.
        concurrency: answers under way at once.
        rules: bounds of an episode.
        scoring: as the block ``rsim.scoring`` of training.
        fusion_url: of the sandbox service, where ``scoring.sandbox`` is "fusion".
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

    def __post_init__(self):
        for key in ("samples", "concurrency", "limit"):
            value = getattr(self, key)
            if not (value is None and key == "limit") and (type(value) is not int or value < 1):
                raise ConfigError(key, value, "must be a whole number >= 1")
        for key in ("temperature", "planner_temperature"):
            value = getattr(self, key)
            if not (value is None and key == "planner_temperature") and not (_is_number(value) and value >= 0):
                raise ConfigError(key, value, "must be a number >= 0")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ConfigError("top_p", self.top_p, "must be in (0, 1]")
        if type(self.seed) is not int:
            raise ConfigError("seed", self.seed, "must be a whole number")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError("samples", self.samples, "at temperature 0 all are equal; set temperature, e.g. 0.7")

    @property
    def draw(self) -> Draw:
        """Each model's sampling."""
        planner = self.temperature if self.planner_temperature is None else self.planner_temperature
        return Draw(Sampling(self.temperature, self.top_p), Sampling(planner, self.top_p), self.seed)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def build_table(
    reasoner: Reasoner,
    planners: Mapping[str, Planner],
    controls: Sequence[str],
    settings: Settings,
    engines_at_once: int | None = None,
) -> Table:
    """The models and what is played with them; see :func:`seat`."""
    seated = seat({"reasoner": reasoner, **planners}, engines_at_once)
    return Table(
        seated["reasoner"],  # type: ignore[arg-type]
        {name: seated[name] for name in planners},  # type: ignore[misc]
        controls,
        settings.rules,
        settings.draw,
    )


def seat(players: Mapping[str, Player], engines_at_once: int | None = None) -> dict[str, Player]:
    """Let models with the same weights share an engine, and engines of this machine its GPU memory.

    Args:
        engines_at_once: how many share that memory; by default those of these players.
    """
    engines: dict[str, Engine] = {}
    seated = {name: _share(player, engines) for name, player in players.items()}
    local = [engine for engine in engines.values() if isinstance(engine, VllmEngine)]
    for engine in local:
        engine.memory_share = GPU_SHARE / (engines_at_once or len(local))
    return seated


def _share(player: Player, engines: dict[str, Engine]) -> Player:
    options = getattr(player.engine, "options", None)
    key = json.dumps([player.engine.name, player.engine.context, options], sort_keys=True, default=str)
    return dataclasses.replace(player, engine=engines.setdefault(key, player.engine))


def default_folder(fixed: Mapping[str, Any]) -> Path:
    """Where an evaluation goes that names no folder: the same evaluation always to the same."""
    text = json.dumps(fixed, sort_keys=True)
    return home() / "evals" / hashlib.sha256(text.encode()).hexdigest()[:12]
