"""Measures how far rounding moves log-probs: one model in float32 and bfloat16, in transformers and in vLLM.

    VERL_PLATFORM=cpu python benchmarks/speed/log_prob_gap.py .rsim/models/smollm2

Prints the mean |log-prob difference| over sampled tokens: of each implementation against transformers in float32 (taken
as exact), and of the two bfloat16 implementations against each other. A trainer in bfloat16 cannot be below the last
number.
"""

from __future__ import annotations

import sys

QUESTIONS = ("What is 23 + 45?", "Tom has 3 apples and buys 8 more. How many?", "Tell me of a dog.", "Primes below 20?")
NEW_TOKENS = 64


def log_probs(model, sequence: list[int], prompt: int):
    """Returns the log-probs of the tokens after the first ``prompt`` ones, in float32."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([sequence])).logits[0, prompt - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(sequence[prompt:])[:, None])[:, 0]


def vllm_log_probs(path: str, dtype: str, sequences: list[list[int]], prompts: list[int]):
    """Returns the same log-probs as vLLM computes them, for all sequences."""
    import torch
    from vllm import LLM, SamplingParams

    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    llm = LLM(path, dtype=dtype, enforce_eager=True, max_model_len=512, kv_cache_memory_bytes=1 << 30)
    outputs = llm.generate([{"prompt_token_ids": s} for s in sequences], params, use_tqdm=False)
    values = []
    for output, sequence, prompt in zip(outputs, sequences, prompts, strict=True):
        for position in range(prompt, len(sequence)):
            values.append(output.prompt_logprobs[position][sequence[position]].logprob)
    return torch.tensor(values)


def main(path: str) -> None:
    """Samples from the float32 model, scores the tokens in every way, and prints the table."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    exact = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=False)
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_new_tokens": NEW_TOKENS, "pad_token_id": 0}
    sequences = [exact.generate(torch.tensor([prompt]), **options)[0].tolist() for prompt in ids]
    lengths = [len(prompt) for prompt in ids]

    def score(model):
        return torch.cat([log_probs(model, s, n) for s, n in zip(sequences, lengths, strict=True)])

    truth = score(exact)
    rounded = score(AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, trust_remote_code=False))
    served = {dtype: vllm_log_probs(path, dtype, sequences, lengths) for dtype in ("float32", "bfloat16")}
    table = {
        "transformers bfloat16 - exact": rounded - truth,
        "vLLM float32          - exact": served["float32"] - truth,
        "vLLM bfloat16         - exact": served["bfloat16"] - truth,
        "vLLM bfloat16 - transformers bfloat16": served["bfloat16"] - rounded,
    }
    print(f"{len(truth)} tokens")
    for name, difference in table.items():
        print(f"{name:40} {difference.abs().mean().item():.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
