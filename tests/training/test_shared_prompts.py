"""Rows that share a prompt, against the same rows one by one in plain transformers."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from verl_rsim.training.shared_prompts import share_prompts


def rows_of_two_questions() -> tuple[list[torch.Tensor], list[int]]:
    """Returns rows and their responses' lengths; the prompts of rows 0, 2 and 3 are equal, that of row 4 is as long."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> torch.Tensor:
        return torch.randint(1, 90, (count,), generator=generator)

    first, second, third = tokens(11), tokens(4), tokens(11)
    prompts, lengths = [first, second, first, first, third], [3, 7, 1, 6, 2]
    return [torch.cat([prompt, tokens(length)]) for prompt, length in zip(prompts, lengths, strict=True)], lengths


def lay_out(rows: list[torch.Tensor], lengths: list[int]):
    return share_prompts(torch.nested.as_nested_tensor(rows, layout=torch.jagged), torch.tensor(lengths))


def test_hidden_states_and_gradients_are_those_of_separate_rows():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaForCausalLM(config).double()
    rows, lengths = rows_of_two_questions()
    shared = lay_out(rows, lengths)
    weights = [torch.randn(len(row), 97, dtype=torch.float64) for row in rows]

    logits = model(
        input_ids=shared.input_ids, position_ids=shared.position_ids, attention_mask=shared.attention_mask
    ).logits
    together = logits.flatten(0, 1)[shared.places]
    (together * torch.cat(weights)).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    separate = [model(row[None]).logits[0] for row in rows]
    sum((one * weight).sum() for one, weight in zip(separate, weights, strict=True)).backward()

    # Llama's normalisation rounds to float32.
    torch.testing.assert_close(together, torch.cat(separate), rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_a_prompt_is_there_once():
    rows, lengths = rows_of_two_questions()
    shared = lay_out(rows, lengths)
    assert shared.input_ids.shape == (3, 11 + 3 + 1 + 6)
    assert torch.equal(shared.input_ids.flatten()[shared.places], torch.cat(rows))
    assert shared.position_ids.flatten()[shared.places].tolist() == [i for row in rows for i in range(len(row))]
    assert shared.attention_mask.any(-1).all()  # a place that attends to nothing would be NaN


def test_rows_without_a_prompt_in_common_stay_rows():
    rows, lengths = rows_of_two_questions()
    shared = lay_out(rows[:2], lengths[:2])
    assert shared.input_ids.shape == (2, 14)
    assert torch.equal(shared.attention_mask[0, 0], torch.ones(14, 14).tril().bool())
