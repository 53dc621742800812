"""Refuses settings of a LoRA policy that cannot work, or that verl would ignore, before anything is started.

What LoRA does is verl's: docs/lora.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_rsim.training.preflight.meta_model import adapter_parameters
from verl_rsim.utils.errors import ConfigError

LARGEST_RANK = 512
"""Of an adapter that vLLM serves."""
NOT_ADAPTED = ("model.embed_tokens", "lm_head")
PLAIN = {"bias": "none", "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}}


def check_lora(block: DictConfig, key: str, *, frozen: bool) -> None:
    """Check a role's block.

    Args:
        block: ``planner`` or ``actor_rollout_ref``.
        key: its name.
        frozen: the role is not trained.

    Raises:
        ConfigError: naming the setting.
    """
    model, rank = block.model, block.model.lora_rank
    if model.lora.get("rank", 0) > 0:
        fix = f"is Megatron's; set {key}.model.lora_rank (and lora_alpha, target_modules) instead"
        raise ConfigError(f"{key}.model.lora.rank", model.lora.rank, fix)
    if model.lora_adapter_path is not None:
        _check_adapter(model, key, frozen)
    if frozen or rank <= 0:
        return
    merged = model.lora.get("merge", False)
    if rank > LARGEST_RANK and not merged:
        fix = f"vLLM serves adapters up to {LARGEST_RANK}; lower it, or set {key}.model.lora.merge=true"
        raise ConfigError(f"{key}.model.lora_rank", rank, fix)
    if (name := _adapted(model.target_modules)) is not None:
        fix = f"adapts {name}, which cannot be exported; name layers between the embedding and the head, or all-linear"
        raise ConfigError(f"{key}.model.target_modules", _shown(model.target_modules), fix)
    try:
        adapter_parameters(model)
    except ValueError as error:
        raise ConfigError(f"{key}.model.target_modules", _shown(model.target_modules), str(error)) from error
    if model.get("target_parameters"):
        fix = "adapters of parameters cannot be exported; name modules in target_modules"
        raise ConfigError(f"{key}.model.target_parameters", _shown(model.target_parameters), fix)
    if block.rollout.get("layered_summon") and block.rollout.load_format.startswith("dummy") and not merged:
        fix = f"the servers must then load the base model themselves: set {key}.rollout.load_format=safetensors"
        raise ConfigError(f"{key}.rollout.layered_summon", True, fix)


def _adapted(target_modules: Any) -> str | None:
    """The module beside the layers that would get an adapter, matched as PEFT does; None if there is none."""
    if isinstance(target_modules, str):
        chosen = target_modules != "all-linear"
        return next((name for name in NOT_ADAPTED if chosen and re.fullmatch(target_modules, name)), None)
    return next((name for name in NOT_ADAPTED for end in target_modules if f".{name}".endswith(f".{end}")), None)


def _check_adapter(model: DictConfig, key: str, frozen: bool) -> None:
    """Check the adapter that a training would go on from."""
    shown, path = f"{key}.model.lora_adapter_path", Path(model.lora_adapter_path).expanduser()
    if frozen:
        fix = "a frozen policy serves its model alone; merge the adapter into it and name that folder as model.path"
        raise ConfigError(shown, str(path), fix)
    if not (path / "adapter_config.json").is_file():
        if str(path).startswith(("/", ".", "~")):
            raise ConfigError(shown, str(path), "there is no adapter here (no adapter_config.json); check the path")
        return  # of a hub: looked at when it is loaded
    adapter = json.loads((path / "adapter_config.json").read_text())
    if adapter.get("r") != model.lora_rank:
        fix = f"the adapter in {path} has rank {adapter.get('r')}; set the same"
        raise ConfigError(f"{key}.model.lora_rank", model.lora_rank, fix)
    unusual = [name for name, value in PLAIN.items() if (adapter.get(name) or value) != value]
    unusual += [name for name in ("use_dora", "use_rslora") if adapter.get(name)]
    unusual += [name for name in [_adapted(adapter.get("target_modules") or [])] if name]
    unusual += ["a fraction for lora_alpha"] if adapter.get("lora_alpha", 1) % 1 else []
    if unusual:
        fix = f"the adapter has {', '.join(unusual)}, which verl does not save; train a plain one"
        raise ConfigError(shown, str(path), fix)


def _shown(value: Any) -> Any:
    return value if isinstance(value, str) else list(value)
