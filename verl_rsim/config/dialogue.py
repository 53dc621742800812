"""Builds the dialogue of a training configuration: both codecs, the limits and the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from verl_rsim.config.schema import RsimConfig
from verl_rsim.core.dialogue import Dialogue, Injection
from verl_rsim.core.prompts import Codec, eos_ids


def build_codec(model: DictConfig, template_kwargs: DictConfig | None, merge_system: bool = True) -> Codec:
    """Returns the codec of a verl model block; loads its tokenizer and configurations.

    Args:
        model: ``actor_rollout_ref.model`` or ``planner.model``.
        template_kwargs: ``data.apply_chat_template_kwargs``.
        merge_system: ``rsim.merge_system``.
    """
    from verl.utils.config import omega_conf_to_dataclass

    loaded = omega_conf_to_dataclass(model)
    ends = eos_ids(loaded.tokenizer, loaded.hf_config, loaded.generation_config)
    template = OmegaConf.to_container(template_kwargs or OmegaConf.create({}))
    vocabulary = loaded.hf_config.get_text_config().vocab_size
    return Codec(loaded.tokenizer, ends, cast(Mapping[str, Any], template), vocabulary, merge_system)


def build_dialogue(config: DictConfig, rsim: RsimConfig) -> Dialogue:
    """Returns the dialogue of a training configuration.

    Args:
        config: the whole configuration; ``actor_rollout_ref`` is the reasoner's block, ``planner`` the planner's.
        rsim: its validated ``rsim`` block.
    """
    template = config.data.get("apply_chat_template_kwargs")
    planner, reasoner = config.planner, config.actor_rollout_ref
    return Dialogue(
        build_codec(reasoner.model if rsim.shared_weights else planner.model, template, rsim.merge_system),
        build_codec(reasoner.model, template, rsim.merge_system),
        rsim.limits(planner.rollout, reasoner.rollout),
        Injection(rsim.injection),
        constrained=rsim.planner_decoding == "constrained",
        delimiter=rsim.step_delimiter,
    )
