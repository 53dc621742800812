"""Refuses models that cannot play their roles, by their configuration files and before anything is started."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig
from verl.utils import hf_processor

from verl_rsim.training.preflight import hardware
from verl_rsim.utils.errors import ConfigError

NEUTRAL_LOGIT_SETTINGS = {
    "logits_scaling": 1.0,
    "logit_scale": 1.0,
    "lm_head_multiplier": 1.0,
    "final_logit_softcapping": None,
    "logits_soft_cap": None,
}
"""Settings by which Granite, Cohere, Falcon-H1, Gemma 2 and RecurrentGemma change logits after the head, with the
values that leave logits unchanged."""


def check_attention(model: DictConfig, key: str) -> None:
    """Refuses flash attention if it is not installed.

    It is verl's default, but verl's extra ``vllm`` does not install it.

    Args:
        model: the model block.
        key: path of the policy's block, for the error.

    Raises:
        ConfigError: the model needs flash attention, which is not installed.
    """
    wanted = OmegaConf.select(model, "override_config.attn_implementation", default="flash_attention_2")
    if wanted == "flash_attention_2" and not hardware.has_flash_attention():
        fix = (
            "flash-attn is not installed: pip install --no-build-isolation flash-attn==2.8.3; "
            f"or, slower, +{key}.model.override_config.attn_implementation=sdpa"
        )
        raise ConfigError(f"{key}.model.override_config.attn_implementation", wanted, fix)


def check_context(block: DictConfig, rows: DictConfig, key: str) -> None:
    """Checks that the longest row of a policy fits into the context of its model and servers.

    Args:
        block: the policy's block; its ``model`` and ``rollout.max_model_len`` limit the context.
        rows: the rollout block with the lengths of the rows; another one than ``block.rollout`` with shared weights.
        key: path of the block that holds ``rows``, for the error.

    Raises:
        ConfigError: the rows are too long, or there is no such model.
    """
    try:
        hf_config = AutoConfig.from_pretrained(block.model.path, trust_remote_code=block.model.trust_remote_code)
    except (OSError, ValueError) as error:  # transformers found no such model, or does not know its architecture
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{key}.model.path", block.model.path, f"name another model, {reason}") from error
    context = block.rollout.max_model_len or getattr(hf_config, "max_position_embeddings", None)
    longest_row = rows.prompt_length + rows.response_length
    if context and longest_row > context:
        fix = (
            f"with {key}.rollout.prompt_length a row may have {longest_row} tokens, but the model takes {context}; "
            "lower one"
        )
        raise ConfigError(f"{key}.rollout.response_length", rows.response_length, fix)


def check_positions(planner: DictConfig, reasoner: DictConfig) -> None:
    """Refuses a pair of models if only one of them has multi-dimensional positions (M-RoPE).

    verl computes the positions of both roles' rows with the reasoner's model, and a batch holds them in one shape.

    Args:
        planner: the planner's model block.
        reasoner: the reasoner's model block.

    Raises:
        ConfigError: the positions differ; names the planner's model.
    """
    planner_positions, reasoner_positions = _positions(planner), _positions(reasoner)
    if planner_positions != reasoner_positions:
        fix = (
            f"its positions are {planner_positions} and those of actor_rollout_ref.model.path={reasoner.path} are "
            f"{reasoner_positions}; verl computes those of both policies in one way, so name two models of one kind"
        )
        raise ConfigError("planner.model.path", planner.path, fix)


def _positions(model: DictConfig) -> str:
    return "multi-dimensional (M-RoPE)" if _uses_mrope(model) else "plain"


def _uses_mrope(model: DictConfig) -> bool:
    """Returns True if a model has multi-dimensional positions, decided by its processor as verl decides it."""
    hf_config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    if getattr(hf_config, "vision_config", None) is None:
        return False
    path = model.get("tokenizer_path") or model.path
    return hasattr(hf_processor(path, trust_remote_code=model.trust_remote_code), "get_rope_index")


def check_logits(model: DictConfig) -> None:
    """Refuses, for shared weights, a model that changes its logits after the head.

    With shared weights the logits of the labels are computed by the head alone, so that the change would be missing.

    Args:
        model: the reasoner's model block, which plays both roles.

    Raises:
        ConfigError: the model changes its logits.
    """
    hf_config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    for name, neutral in NEUTRAL_LOGIT_SETTINGS.items():
        value = getattr(hf_config.get_text_config(), name, neutral)
        if value not in (neutral, None):
            fix = (
                f"its {name} of {value} changes logits after the head, where shared weights read the labels' logits; "
                "train two policies, or another model"
            )
            raise ConfigError("actor_rollout_ref.model.path", model.path, fix)
