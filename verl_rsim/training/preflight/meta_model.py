"""A model's architecture without its weights, to count on. Loads a configuration, no weights."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def empty_model(model: DictConfig) -> Any:
    """The transformers model of a verl model block, its tensors without storage."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    loaded = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(loaded, trust_remote_code=model.trust_remote_code)


def adapter_parameters(model: DictConfig) -> int:
    """How many parameters the LoRA adapter of a model block has; 0 if it has none.

    Raises:
        ValueError: none of the model's modules is chosen for it.
    """
    if model.lora_rank <= 0:
        return 0
    from peft import LoraConfig, get_peft_model

    chosen = OmegaConf.to_container(OmegaConf.masked_copy(model, ["target_modules", "exclude_modules"]))
    adapted = get_peft_model(empty_model(model), LoraConfig(task_type="CAUSAL_LM", r=model.lora_rank, **chosen))
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
