"""Refuses models that cannot play their roles: by their configuration files, before anything is started."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig
from verl.utils import hf_processor

from verl_rsim.training.preflight import hardware
from verl_rsim.utils.errors import ConfigError

CHANGED_LOGITS = {
    "logits_scaling": 1.0,
    "logit_scale": 1.0,
    "lm_head_multiplier": 1.0,
    "final_logit_softcapping": None,
    "logits_soft_cap": None,
}
"""What Granite, Cohere, Falcon-H1, Gemma 2 and RecurrentGemma do to logits after the head; the neutral values."""


def check_attention(model: DictConfig, key: str) -> None:
    """Refuse flash attention where it is not installed: verl's default, which its extra ``vllm`` does not bring.

    Raises:
        ConfigError: on the block ``key``.
    """
    wanted = OmegaConf.select(model, "override_config.attn_implementation", default="flash_attention_2")
    if wanted == "flash_attention_2" and not hardware.has_flash_attention():
        fix = (
            "flash-attn is not installed: pip install --no-build-isolation flash-attn==2.8.3; "
            f"or, slower, +{key}.model.override_config.attn_implementation=sdpa"
        )
        raise ConfigError(f"{key}.model.override_config.attn_implementation", wanted, fix)


def check_context(block: DictConfig, rows: DictConfig, key: str) -> None:
    """Check that the model and servers of ``block`` take the rows of ``{key}.rollout``.

    Raises:
        ConfigError: they do not, or there is no such model.
    """
    try:
        hf_config = AutoConfig.from_pretrained(block.model.path, trust_remote_code=block.model.trust_remote_code)
    except (OSError, ValueError) as error:  # transformers': no such model, or one it does not know
        said = str(error).strip().splitlines()[0]
        raise ConfigError(f"{key}.model.path", block.model.path, f"name another model, {said}") from error
    longest = block.rollout.max_model_len or getattr(hf_config, "max_position_embeddings", None)
    wanted = rows.prompt_length + rows.response_length
    if longest and wanted > longest:
        fix = (
            f"with {key}.rollout.prompt_length a row may have {wanted} tokens, but the model takes {longest}; lower one"
        )
        raise ConfigError(f"{key}.rollout.response_length", rows.response_length, fix)


def check_positions(planner: DictConfig, reasoner: DictConfig) -> None:
    """Refuse two models of which one has positions in several dimensions.

    verl computes the positions of both roles' rows by the reasoner's model, and a batch holds them in one shape.

    Raises:
        ConfigError: of the planner's.
    """
    ours, others = (
        "in several dimensions (M-RoPE)" if _has_many_dimensions(model) else "plain" for model in (planner, reasoner)
    )
    if ours != others:
        fix = (
            f"its positions are {ours} and those of actor_rollout_ref.model.path={reasoner.path} {others}; verl "
            "computes them alike for both policies, so name two models of one kind"
        )
        raise ConfigError("planner.model.path", planner.path, fix)


def _has_many_dimensions(model: DictConfig) -> bool:
    """Whether a model's positions are more than a number each, by its processor, as verl decides it."""
    hf_config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    if getattr(hf_config, "vision_config", None) is None:
        return False
    path = model.get("tokenizer_path") or model.path
    return hasattr(hf_processor(path, trust_remote_code=model.trust_remote_code), "get_rope_index")


def check_logits(model: DictConfig) -> None:
    """Refuse a model that changes its logits after the head, where those of the labels are read with shared weights.

    Raises:
        ConfigError: of the reasoner's, which is both.
    """
    hf_config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    for name, neutral in CHANGED_LOGITS.items():
        if (value := getattr(hf_config.get_text_config(), name, neutral)) not in (neutral, None):
            fix = (
                f"its {name} of {value} changes logits after the head, where the labels' are read with shared weights; "
                "train two policies, or another model"
            )
            raise ConfigError("actor_rollout_ref.model.path", model.path, fix)
