"""Makes stand-ins for the models and data of recipes, without the hub: architectures without weights, and tiny models.

They have a tiny model's tokenizer with the chat template of Qwen2.5 (Apache-2.0), including its system message.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from support.paths import FIXTURES, ROOT

from verl_rsim.data.prepare import prepare
from verl_rsim.data.prepare_models import prepare_tiny

TEMPLATE = FIXTURES / "qwen2.5_chat.jinja"
CPU_BLOCKS = ROOT / "verl_rsim/config"
QWEN = {  # hidden size, inner size, layers, heads, key-value heads, tied embeddings, vocabulary
    "0.5B": (896, 4864, 24, 14, 2, True, 151936),
    "1.5B": (1536, 8960, 28, 12, 2, True, 151936),
    "3B": (2048, 11008, 36, 16, 2, True, 151936),
    "7B": (3584, 18944, 28, 28, 4, False, 152064),
}
"""Architectures of Qwen2.5, from its config files."""
SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
"""Architecture of SmolLM2-135M-Instruct, from its config file."""
ON_CPUS = ("models/smollm2", "exported/quickstart/planner")
"""Ends of the paths under which recipes for a CPU name SmolLM2, trained or not."""
BLOCKS = ("planner", "actor_rollout_ref")
COUNTS = {
    "data.train_batch_size": 4,
    "actor_rollout_ref.rollout.n": 4,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 2,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 4096,
    "trainer.total_training_steps": 2,
}
LENGTHS = {"data.max_prompt_length": 512, "data.max_response_length": 256, "data.val_max_samples": 4}
TURNS = {
    "planner.rollout.prompt_length": 1760,
    "planner.rollout.response_length": 256,
    "planner.rollout.tensor_model_parallel_size": 1,
    "rsim.max_turns": 3,
    "rsim.max_step_tokens": 16,
    "rsim.max_answer_tokens": 16,
    "rsim.planner_pool.n_gpus_per_node": 1,
    "rsim.planner_pool.nnodes": 1,
}


def stock_home(home: Path) -> None:
    """Fills a home with the tiny models and the stand-ins for all data that recipes name."""
    prepare_tiny(home / "models/tiny-llama", "llama", 0)
    prepare_tiny(home / "models/tiny-qwen2", "qwen2", 1)
    altered(home / "models/tiny-qwen2", home / "models/tiny-qwen2.5", {})
    prepare(home / "data/arithmetic", "arithmetic", train=64, test=16)
    prepare(home / "data/math", "arithmetic", train=256, test=16)
    prepare(home / "data/humaneval", "humaneval", train=64, test=16)


def altered(tiny: Path, folder: Path, changes: dict, weights: bool = True) -> None:
    """Copies a tiny model, with Qwen2.5's chat template and changes to its configuration."""
    left_out = ("manifest.json",) if weights else ("manifest.json", "*.safetensors")
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    shutil.copy(TEMPLATE, folder / "chat_template.jinja")
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def architectures(home: Path, folder: Path) -> None:
    """Writes the architectures of Qwen2.5 and SmolLM2 without weights, which the checks do not read."""
    altered(home / "models/tiny-llama", folder / "SmolLM2-135M-Instruct", SMOLLM2, weights=False)
    for size, (hidden, inner, layers, heads, kv_heads, tied, vocabulary) in QWEN.items():
        changes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
        changes |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "tie_word_embeddings": tied}
        changes |= {"vocab_size": vocabulary, "max_position_embeddings": 32768, "head_dim": hidden // heads}
        changes["layer_types"] = ["full_attention"] * layers
        altered(home / "models/tiny-qwen2", folder / f"Qwen2.5-{size}-Instruct", changes, weights=False)


def use_architectures(config: DictConfig, folder: Path) -> None:
    """Replaces the hub's models in a configuration by those of :func:`architectures`."""
    for block in BLOCKS:
        path = str(config[block].model.path) if block in config else ""
        if path.startswith("Qwen/"):
            config[block].model.path = str(folder / Path(path).name)
        elif path.endswith(ON_CPUS):
            config[block].model.path = str(folder / "SmolLM2-135M-Instruct")


def small(config: DictConfig, home: Path) -> list[str]:
    """Returns the overrides that let a recipe run on a CPU: tiny models of the same family and small sizes.

    Counts only become smaller. Lengths are replaced: the tiny tokenizer makes more tokens of a text than a real one.
    """
    changes = dict(LENGTHS)
    blocks = ("cpu_stock", "cpu") if "planner" in config else ("cpu_stock",)
    for block in blocks if config.trainer.device != "cpu" else ():
        changes |= _flat(yaml.safe_load((CPU_BLOCKS / f"{block}.yaml").read_text()))
    changes |= {key: min(value, OmegaConf.select(config, key) or value) for key, value in COUNTS.items()}
    changes |= {f"trainer.{key}": 2 for key in ("test_freq", "save_freq") if config.trainer[key] > 0}
    changes |= TURNS if "planner" in config else {}
    for block in BLOCKS:
        if block in config and config[block].model.path:
            family = "qwen2.5" if "qwen" in str(config[block].model.path).lower() else "llama"
            changes[f"{block}.model.path"] = home / f"models/tiny-{family}"
    return [f"++{key}={value}" for key, value in changes.items()]


def _flat(block: dict, prefix: str = "") -> dict[str, object]:
    """Returns the dotted keys of a configuration file with their values, without its defaults list."""
    found: dict[str, object] = {}
    for key, value in block.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif key != "defaults":
            found[prefix + key] = str(value).lower() if isinstance(value, bool) else value
    return found
