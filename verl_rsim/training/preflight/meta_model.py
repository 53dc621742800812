"""Counts parameters on models without weights; loads their configurations only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(model: DictConfig) -> PreTrainedModel:
    """Returns the transformers model of a verl model block, with tensors that have no storage.

    A vision-language model is built whole, as verl builds it: its vision tower takes memory, too.
    """
    import torch
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    loaded = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    sees_images = type(loaded) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    model_class = AutoModelForImageTextToText if sees_images else AutoModelForCausalLM
    with torch.device("meta"):
        return model_class.from_config(loaded, trust_remote_code=model.trust_remote_code)


def adapter_parameters(model: DictConfig) -> int:
    """Returns the number of parameters of a model block's LoRA adapter; 0 if it has none.

    Raises:
        ValueError: ``target_modules`` matches no module of the model.
    """
    if model.lora_rank <= 0:
        return 0
    from peft import LoraConfig, get_peft_model

    modules = OmegaConf.to_container(OmegaConf.masked_copy(model, ["target_modules", "exclude_modules"]))
    config = LoraConfig(task_type="CAUSAL_LM", r=model.lora_rank, **cast(dict[str, Any], modules))
    adapted = get_peft_model(empty_model(model), config)
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
