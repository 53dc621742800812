"""Refuses settings of a LoRA policy that cannot work, or that verl would ignore, before anything is started.

verl implements LoRA itself; see docs/lora.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_rsim.training.preflight.meta_model import adapter_parameters
from verl_rsim.utils.errors import ConfigError

MAX_SERVED_RANK = 512
"""Largest rank of an adapter that vLLM serves."""
NOT_EXPORTABLE = ("model.embed_tokens", "lm_head")
"""Modules outside the layers; adapters of them cannot be exported."""
SAVED_VALUES: dict[str, object] = {"bias": "none", "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}}
"""Settings of an adapter that verl does not save, with the only values that survive a save."""


def check_lora(block: DictConfig, key: str, *, frozen: bool) -> None:
    """Checks the LoRA settings of a role's block.

    Args:
        block: ``planner`` or ``actor_rollout_ref``.
        key: name of the block.
        frozen: True if the role is not trained.

    Raises:
        ConfigError: a setting cannot work, or verl would ignore it.
    """
    model, rank = block.model, block.model.lora_rank
    if model.lora.get("rank", 0) > 0:
        fix = f"applies only to Megatron; set {key}.model.lora_rank (and lora_alpha, target_modules) instead"
        raise ConfigError(f"{key}.model.lora.rank", model.lora.rank, fix)
    if model.lora_adapter_path is not None:
        _check_adapter(model, key, frozen)
    if frozen or rank <= 0:
        return
    merged = model.lora.get("merge", False)
    if rank > MAX_SERVED_RANK and not merged:
        fix = f"vLLM serves adapters up to {MAX_SERVED_RANK}; lower it, or set {key}.model.lora.merge=true"
        raise ConfigError(f"{key}.model.lora_rank", rank, fix)
    name = _not_exportable(model.target_modules)
    if name is not None:
        fix = f"adapts {name}, which cannot be exported; name layers between the embedding and the head, or all-linear"
        raise ConfigError(f"{key}.model.target_modules", _printable(model.target_modules), fix)
    try:
        adapter_parameters(model)
    except ValueError as error:
        raise ConfigError(f"{key}.model.target_modules", _printable(model.target_modules), str(error)) from error
    if model.get("target_parameters"):
        fix = "adapters of single parameters cannot be exported; name modules in target_modules"
        raise ConfigError(f"{key}.model.target_parameters", _printable(model.target_parameters), fix)
    if block.rollout.get("layered_summon") and block.rollout.load_format.startswith("dummy") and not merged:
        fix = f"the servers must then load the base model themselves: set {key}.rollout.load_format=safetensors"
        raise ConfigError(f"{key}.rollout.layered_summon", True, fix)


def _not_exportable(target_modules: str | Sequence[str]) -> str | None:
    """Returns the first of :data:`NOT_EXPORTABLE` that would get an adapter, or None."""
    if target_modules == "all-linear":
        return None
    for name in NOT_EXPORTABLE:
        if _matches(name, target_modules):
            return name
    return None


def _matches(name: str, target_modules: str | Sequence[str]) -> bool:
    """Returns True if PEFT would match a module: a string is a regular expression, a list holds ends of names."""
    if isinstance(target_modules, str):
        return re.fullmatch(target_modules, name) is not None
    return any(f".{name}".endswith(f".{end}") for end in target_modules)


def _check_adapter(model: DictConfig, key: str, frozen: bool) -> None:
    """Checks the adapter from which the training would continue."""
    path_key, path = f"{key}.model.lora_adapter_path", Path(model.lora_adapter_path).expanduser()
    if frozen:
        fix = "a frozen policy serves its model alone; merge the adapter into it and name that folder as model.path"
        raise ConfigError(path_key, str(path), fix)
    if not (path / "adapter_config.json").is_file():
        if str(path).startswith(("/", ".", "~")):
            raise ConfigError(path_key, str(path), "there is no adapter here (no adapter_config.json); check the path")
        return  # an id on the Hugging Face hub: cannot be checked before it is loaded
    adapter = json.loads((path / "adapter_config.json").read_text())
    if adapter.get("r") != model.lora_rank:
        fix = f"the adapter in {path} has rank {adapter.get('r')}; set the same"
        raise ConfigError(f"{key}.model.lora_rank", model.lora_rank, fix)
    lost = [name for name, value in SAVED_VALUES.items() if (adapter.get(name) or value) != value]
    lost += [name for name in ("use_dora", "use_rslora") if adapter.get(name)]
    module = _not_exportable(adapter.get("target_modules") or [])
    if module:
        lost.append(module)
    if adapter.get("lora_alpha", 1) % 1:  # verl saves alpha as an integer
        lost.append("a fraction for lora_alpha")
    if lost:
        fix = f"the adapter has {', '.join(lost)}, which verl does not save; train a plain one"
        raise ConfigError(path_key, str(path), fix)


def _printable(value: Any) -> str | list[str]:
    """Returns a setting as plain types, for error messages."""
    return value if isinstance(value, str) else list(value)
