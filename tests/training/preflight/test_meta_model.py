"""Parameter counts on models without weights agree with the definition."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import AutoConfig

from verl_rsim.training.preflight.doctor_job import model_size
from verl_rsim.training.preflight.meta_model import adapter_parameters


@pytest.mark.parametrize(
    ("target", "excluded", "modules"),
    [
        ("all-linear", None, "q k v o gate up down"),
        (["q_proj", "v_proj"], None, "q v"),
        ("all-linear", ["down_proj"], "q k v o gate up"),
    ],
    ids=["all", "named", "excluded"],
)
def test_an_adapter_has_rank_times_both_widths_of_each_module(home: Path, target, excluded, modules):
    path, rank = home / "models/tiny-llama", 8
    block = {"path": str(path), "trust_remote_code": False, "lora_rank": rank}
    block |= {"target_modules": target, "exclude_modules": excluded}
    c = AutoConfig.from_pretrained(path)
    heads, kv, hidden, wide = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, 128, 256
    widths = {"q": hidden + heads, "k": hidden + kv, "v": hidden + kv, "o": hidden + heads}
    widths |= dict.fromkeys(("gate", "up", "down"), hidden + wide)
    expected = c.num_hidden_layers * rank * sum(widths[module] for module in modules.split())
    assert adapter_parameters(OmegaConf.create(block)) == expected
    assert adapter_parameters(OmegaConf.create(block | {"lora_rank": 0})) == 0


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "mistral3", "internvl"])
def test_a_vision_language_model_is_counted_with_its_text_tower(tmp_path: Path, family):
    config = AutoConfig.for_model(family)
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size = 2, 1000
    if hasattr(text, "layer_types"):
        text.layer_types = (text.layer_types or [])[:2] or None
    config.save_pretrained(tmp_path)
    size = model_size(OmegaConf.create({"path": str(tmp_path), "trust_remote_code": False}))
    assert (size.layers, size.hidden, size.vocabulary) == (2, text.hidden_size, 1000)
    assert size.parameters > 1000 * text.hidden_size
