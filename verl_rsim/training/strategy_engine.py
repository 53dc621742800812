"""The planner's training engines: verl's FSDP engine over the distribution of the nine strategy labels.

The planner samples among nine tokens, so its policy is the nine-way distribution, renormalised. Only the hidden states
where a label is predicted meet the head, and only the head's nine label rows: logits over the vocabulary never exist.
The model keeps its parameters and their names: FSDP, weight sync, LoRA and checkpoints see an ordinary language model.

Chosen by ``model_type``: ``strategy_policy``, or ``shared_policy`` for one model that plays both roles. Sequence
parallelism and fused kernels do not apply here and are refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

from verl_rsim.core.prompts import Codec
from verl_rsim.utils.errors import ConfigError

MODEL_TYPE, SHARED_TYPE = "strategy_policy", "shared_policy"
LABEL_MASK = "label_mask"
"""A field of the rows of a shared policy, nested ``(rows, response length)``: 1 at the planner's labels."""


def action_positions(
    sequence_offsets: torch.Tensor, response_mask: torch.Tensor, row_stride: int | None = None
) -> torch.Tensor:
    """Where in the flattened hidden states the generated tokens are predicted.

    Args:
        sequence_offsets: ``(rows + 1,)``, boundaries of the packed sequences (prompt and response).
        response_mask: nested ``(rows, response length)``, 1 at generated tokens.
        row_stride: None when the hidden states are packed; the padded length when they are ``(rows, length, hidden)``.

    Returns:
        ``(actions,)`` indices, in the order of the packed sequences; the token at ``p`` is predicted at ``p - 1``.
    """
    lengths = response_mask.offsets().diff()
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    within = torch.arange(len(rows), device=rows.device) - response_mask.offsets()[:-1][rows]
    sequence_lengths = sequence_offsets.diff()
    starts = (
        sequence_offsets[:-1] if row_stride is None else torch.arange(len(lengths), device=rows.device) * row_stride
    )
    predicted_at = (starts + sequence_lengths - lengths - 1)[rows] + within
    return predicted_at[response_mask.values().bool()]


def head_over(head: torch.nn.Module, label_ids: torch.Tensor) -> None:
    """Make ``head`` (an lm_head) compute the labels' logits only, at ``head.action_positions`` only.

    The instance's ``forward`` is replaced; its parameters stay as they are. Set ``head.action_positions`` before each
    forward pass.
    """
    head.register_buffer("label_ids", label_ids, persistent=False)
    head.forward = partial(label_logits, head)


def label_logits(head: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """The logits of ``head.label_ids`` at ``head.action_positions``, ``(1, actions, labels)``.

    In float32: rounded to bfloat16 they would be off by up to 0.06 at a magnitude of 16.
    """
    chosen = hidden.reshape(-1, hidden.shape[-1])[head.action_positions]
    labels = head.label_ids.to(hidden.device)
    bias = head.bias[labels].float() if head.bias is not None else None
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(chosen.float(), head.weight[labels].float(), bias).unsqueeze(0)


def labels_beside(head: torch.nn.Module, label_ids: torch.Tensor) -> None:
    """Make ``head`` (an lm_head) leave the labels' logits in ``head.label_logits``, beside those that it returns."""
    head.register_buffer("label_ids", label_ids, persistent=False)
    whole = head.forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        head.label_logits = label_logits(head, hidden)
        return whole(hidden)

    head.forward = forward


def strategy_log_probs(
    logits: torch.Tensor, choices: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the choices and entropies of the distributions, in float32.

    Args:
        logits: ``(actions, labels)``.
        choices: ``(actions,)`` indices into the labels.
        temperature: ``(actions,)``, above 0.
    """
    log_probs = torch.log_softmax(logits.float() / temperature.unsqueeze(-1), dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(-1, choices.unsqueeze(-1)).squeeze(-1), entropy


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class StrategyPolicyEngine(FSDPEngineWithLMHead):
    """FSDP engine whose policy is the distribution over the strategy labels.

    Attributes:
        model_type: its name in verl's registry.
        actions: the field of the rows with 1 where a label was chosen.
        prepare_head: makes the head compute the labels' logits.
    """

    model_type = MODEL_TYPE
    actions = "response_mask"
    prepare_head = staticmethod(head_over)

    def _build_module(self) -> torch.nn.Module:
        if self.engine_config.ulysses_sequence_parallel_size > 1:
            raise ConfigError(
                "planner.actor.ulysses_sequence_parallel_size",
                self.engine_config.ulysses_sequence_parallel_size,
                "the strategy policy has no sequence parallelism; set it to 1",
            )
        if self.model_config.use_fused_kernels:
            raise ConfigError(
                "planner.model.use_fused_kernels", True, "the strategy policy needs no fused head; set it to False"
            )
        with self._as_language_model():
            module = super()._build_module()
        labels = Codec(self.model_config.tokenizer, frozenset()).label_ids()
        self._label_ids = torch.tensor(labels)
        self._head = module.get_output_embeddings()
        self.prepare_head(self._head, self._label_ids)
        return module

    @contextlib.contextmanager
    def _as_language_model(self) -> Iterator[None]:
        """verl builds modules for language_model and value_model only."""
        self.model_config.model_type = "language_model"
        try:
            yield
        finally:
            self.model_config.model_type = self.model_type

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """verl's inputs, plus the positions whose hidden states meet the head."""
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        stride = None if packed else model_inputs["input_ids"].shape[1]
        offsets = micro_batch["input_ids"].offsets()
        mask = micro_batch[self.actions]
        self._head.action_positions = action_positions(offsets, mask, stride)
        output_args["action_positions"] = action_positions(offsets, mask)
        return model_inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Log-probs (and entropies) as nested ``(rows, sequence length)``, 0 where no label is predicted."""
        input_ids, positions = micro_batch["input_ids"], output_args["action_positions"]
        actions = input_ids.values()[positions + 1]
        choices = (actions.unsqueeze(-1) == self._label_ids.to(actions.device)).to(torch.uint8).argmax(-1)
        temperature = micro_batch["temperature"]
        if isinstance(temperature, torch.Tensor):
            rows = torch.repeat_interleave(
                torch.arange(len(temperature), device=positions.device), input_ids.offsets().diff()
            )
            temperature = temperature[rows[positions]].float()
        else:
            temperature = torch.full(positions.shape, float(temperature), device=positions.device)
        log_probs, entropy = strategy_log_probs(output.logits.squeeze(0), choices, temperature)

        def spread(values: torch.Tensor) -> torch.Tensor:
            full = values.new_zeros(input_ids.values().shape[0]).index_put((positions,), values)
            return torch.nested.nested_tensor_from_jagged(full, input_ids.offsets())

        model_output = {"log_probs": spread(log_probs)}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            model_output["entropy"] = spread(entropy)
        return model_output


@EngineRegistry.register(model_type=SHARED_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class SharedPolicyEngine(StrategyPolicyEngine):
    """FSDP engine whose policy is over the labels in the planner's rows, over the vocabulary in the reasoner's."""

    model_type = SHARED_TYPE
    actions = LABEL_MASK
    prepare_head = staticmethod(labels_beside)

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """verl's outputs, with those of the labels where one was chosen."""
        labels = SimpleNamespace(logits=self._head.label_logits)
        chosen = super().prepare_model_outputs(labels, output_args, micro_batch, logits_processor_func)
        found = FSDPEngineWithLMHead.prepare_model_outputs(
            self, output, output_args, micro_batch, logits_processor_func
        )
        positions = output_args["action_positions"]
        for name, values in chosen.items():
            whole = found[name].values().to(values.dtype)  # verl's are in bfloat16 where the model is
            merged = whole.index_put((positions,), values.values()[positions])
            found[name] = torch.nested.nested_tensor_from_jagged(merged, found[name].offsets())
        return found
