"""Adapters that verl would not save completely are refused as a start for training."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from verl_rsim.training.preflight.lora import check_lora
from verl_rsim.utils.errors import ConfigError


def go_on_from(path) -> None:
    model = {"lora_adapter_path": str(path), "lora_rank": 4, "lora": {}, "target_modules": "all-linear"}
    check_lora(OmegaConf.create({"model": model}), "planner", frozen=False)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"r": 8}, "has rank 8; set the same"),
        ({"use_dora": True}, "the adapter has use_dora"),
        ({"rank_pattern": {"q_proj": 8}}, "the adapter has rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "the adapter has modules_to_save"),
        ({"target_modules": ["q_proj", "lm_head"]}, "the adapter has lm_head"),
        ({"lora_alpha": 0.5}, "the adapter has a fraction for lora_alpha"),
    ],
)
def test_adapters_that_would_not_be_saved_whole(tmp_path, what, message):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8} | what))
    with pytest.raises(ConfigError, match=message):
        go_on_from(tmp_path)
