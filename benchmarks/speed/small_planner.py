"""Writes a model with random weights, SmolLM2-135M's tokenizer and a tenth of its size (13.4 M parameters).

    python benchmarks/speed/small_planner.py FOLDER

For rollout.py, where a planner's size matters and its choices do not.
"""

from __future__ import annotations

import sys

from verl_rsim.utils.artifact_folders import home


def main(folder: str) -> None:
    """Writes the model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    large = str(home() / "models/smollm2")
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 3, "num_key_value_heads": 1}
    config = AutoConfig.from_pretrained(large, num_hidden_layers=10, trust_remote_code=False, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(large, trust_remote_code=False).save_pretrained(folder)
    print(f"{model.num_parameters() / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main(sys.argv[1])
