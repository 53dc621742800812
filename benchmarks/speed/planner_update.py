"""Compares the planner's update over nine labels, with and without shared prompts, with one over the whole vocabulary.

    python benchmarks/speed/planner_update.py MODEL [ROWS] [PROMPT] [TURNS] [STEP_TOKENS] [LAYERS] [GROUP]

The engines are verl's FSDP engine with the same model, rows and micro-batches: the strategy policy of this package, the
same with shared prompts (with a GROUP above 1), and the language model with logits over the vocabulary. They run in
turn. A row is a prompt and TURNS choices; each choice but the first follows a step of STEP_TOKENS tokens; GROUP rows
have the same prompt. MODEL is a Hugging Face folder, or ``qwen2.5-0.5b`` for random weights of that shape (LAYERS
of its 24). Prints the seconds of forward, backward and optimizer (median of the rounds), the number of logits, and the
ratios.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from tensordict import TensorDict
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import BaseEngine, EngineRegistry

import verl_rsim.training.strategy_engine as engines_of_rsim
from verl_rsim.core.strategies import LABELS
from verl_rsim.data.prepare_models import prepare_tiny

ROUNDS = 3
MICRO_BATCH_TOKENS = 4096
QWEN = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}


def random_qwen(folder: Path, layers: int) -> Path:
    """Writes a model of Qwen2.5-0.5B's architecture with random weights and a small tokenizer; returns its folder."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    prepare_tiny(folder / "tiny", "qwen2")
    config = AutoConfig.for_model(
        "qwen2", vocab_size=151936, num_hidden_layers=layers, tie_word_embeddings=True, **QWEN
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "tiny", trust_remote_code=False).save_pretrained(folder / "model")
    return folder / "model"


def build_engine(model_type: str, path: Path) -> BaseEngine:
    """Returns one of the two engines, in float32."""
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    built = EngineRegistry.new(
        model_type=model_type,
        backend="fsdp2",
        model_config=HFModelConfig(
            path=str(path),
            use_remove_padding=True,
            enable_gradient_checkpointing=True,
            model_type=model_type,
            override_config={"attn_implementation": "sdpa"},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", model_dtype="fp32", mixed_precision=precision, use_torch_compile=False
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-6, total_training_steps=100),
        checkpoint_config=CheckpointConfig(),
    )
    built.initialize()
    return built


def rows(tokenizer, count: int, prompt: int, turns: int, step: int, group: int) -> TensorDict:
    """Returns a batch of random rows of a planner; ``group`` rows at a time have the same prompt."""
    labels = [tokenizer.encode(label, add_special_tokens=False)[0] for label in LABELS]
    inputs, masks = [], []
    for row in range(count):
        if row % group == 0:
            question = torch.randint(20, 200, (prompt,))
        response, mask = [], []
        for turn in range(turns):
            given = step if turn else 0
            response += [*torch.randint(20, 200, (given,)).tolist(), labels[(row + turn) % 9]]
            mask += [0] * given + [1]
        inputs.append(torch.cat([question, torch.tensor(response)]))
        masks.append(torch.tensor(mask))
    nest = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
    positions = [torch.arange(len(row)) for row in inputs]
    batch = tu.get_tensordict(
        {
            "input_ids": nest(inputs),
            "position_ids": nest(positions),
            "response_mask": nest(masks),
            "loss_mask": nest(masks),
        }
    )
    tu.assign_non_tensor(
        batch,
        temperature=1.0,
        use_remove_padding=True,
        pad_mode=DatasetPadMode.NO_PADDING,
        calculate_entropy=False,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=MICRO_BATCH_TOKENS,
        pad_token_id=0,
    )
    return batch


def loss(model_output, data, dp_group=None):
    """Returns the negative sum of the generated tokens' log-probs, and no metrics."""
    mask = torch.zeros_like(model_output["log_probs"].values())
    ends = data["input_ids"].offsets()[1:]
    # The rows are packed. A token's log-prob stands at the position before it, hence the shift by one.
    for end, response in zip(ends, data["response_mask"].unbind(), strict=True):
        mask[end - len(response) - 1 : end - 1] = response.to(mask.dtype)
    return -(model_output["log_probs"].values() * mask).sum(), {}


def update(engine: BaseEngine, batch: TensorDict) -> float:
    """Runs one update and returns its seconds."""
    start = time.perf_counter()
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch.clone(), loss, forward_only=False)
        engine.optimizer_step()
    return time.perf_counter() - start


def main(model: str, *sizes: str) -> None:
    """Measures and prints the times."""
    count, prompt, turns, step, layers, group = [int(size) for size in sizes] + [8, 400, 6, 40, 24, 1][len(sizes) :]
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:29517", rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as folder:
        path = random_qwen(Path(folder), layers) if model == "qwen2.5-0.5b" else Path(model)
        engines = {"nine labels": build_engine(engines_of_rsim.STRATEGY_MODEL, path)}
        if group > 1:
            engines["shared prompts"] = build_engine(engines_of_rsim.SHARED_PROMPT_MODEL, path)
        engines["vocabulary"] = build_engine("language_model", path)
    widest = dict.fromkeys(engines, 0)
    for name, engine in engines.items():

        def record_size(_, __, logits, name=name):  # name=name: the value of now, not that of the loop's end
            widest[name] = max(widest[name], logits.numel())

        engine.module.get_output_embeddings().register_forward_hook(record_size)
    batch = rows(engines["vocabulary"].model_config.tokenizer, count, prompt, turns, step, group)
    for engine in engines.values():  # warm-up
        update(engine, batch)
    rounds = [{name: update(engine, batch) for name, engine in engines.items()} for _ in range(ROUNDS)]
    tokens = batch["input_ids"].values().shape[0]
    print(f"{count} rows, {tokens} tokens, {count * turns} choices, micro-batches of {MICRO_BATCH_TOKENS} tokens")
    for name in engines:
        seconds = statistics.median(times[name] for times in rounds)
        print(f"{name:14} {seconds:7.2f} s   at most {widest[name]} logits in a micro-batch")
    for name, other in zip(list(engines)[::-1][1:], list(engines)[::-1], strict=False):
        ratios = sorted(times[name] / times[other] for times in rounds)
        print(f"time, {name} / {other}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"logits: {widest['nine labels'] / widest['vocabulary']:.2g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
