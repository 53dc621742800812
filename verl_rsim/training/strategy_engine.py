"""Trains the planner with verl's FSDP engine over the distribution of the nine strategy labels.

The planner samples among nine tokens, so its policy is the nine-way distribution, renormalised. The head computes only
the nine labels' logits, and only where a label is predicted: logits over the vocabulary never exist. The model keeps
its parameters and their names, so that FSDP, weight sync, LoRA and checkpoints see an ordinary language model.

Chosen by ``model_type``: ``strategy_policy``, ``shared_prompt_policy`` with ``planner.actor.use_prefix_grouper``, or
``shared_policy`` for one model that plays both roles. Sequence parallelism and fused kernels do not apply here and are
refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

from verl_rsim.core.prompts import Codec
from verl_rsim.training.job_config import LANGUAGE_MODEL, SHARED_MODEL, SHARED_PROMPT_MODEL, STRATEGY_MODEL
from verl_rsim.training.shared_prompts import share_prompts
from verl_rsim.utils.errors import ConfigError

LABEL_MASK = "label_mask"
"""Field of a shared policy's rows, nested ``(rows, response length)``: 1 at the planner's labels."""


def action_positions(
    sequence_offsets: torch.Tensor, response_mask: torch.Tensor, row_stride: int | None = None
) -> torch.Tensor:
    """Returns the positions in the flattened hidden states where the generated tokens are predicted.

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


class LabelHead:
    """Makes an lm_head compute the logits of the strategy labels, at chosen positions only.

    The instance's ``forward`` is replaced, and the state of a forward pass is kept here. A module around the head would
    be cleaner, but it would rename the head's parameters, by which FSDP, weight sync, LoRA and checkpoints know them.

    Args:
        head: the lm_head of the model, before FSDP shards it.
        label_ids: ``(labels,)``, token ids of the strategy labels.
        keep_vocabulary: return the logits over the whole vocabulary, and leave the labels' in ``logits``.

    Attributes:
        positions: ``(actions,)``, where in the flattened hidden states a label is predicted; set it before each forward
            pass.
        logits: ``(1, actions, labels)`` of the last forward pass, with ``keep_vocabulary``.
    """

    def __init__(self, head: torch.nn.Module, label_ids: torch.Tensor, *, keep_vocabulary: bool = False):
        self.head, self.label_ids, self.keep_vocabulary = head, label_ids, keep_vocabulary
        self.positions: torch.Tensor | None = None
        self.logits: torch.Tensor | None = None
        self._vocabulary_forward = head.forward
        head.forward = self.forward  # type: ignore[method-assign]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Runs in the place of the head's own ``forward``."""
        logits = self.label_logits(hidden)
        if not self.keep_vocabulary:
            return logits
        self.logits = logits
        return self._vocabulary_forward(hidden)

    def label_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the labels' logits at ``positions``: ``(1, actions, labels)``.

        They are computed in float32: rounded to bfloat16 they would be off by up to 0.06 at a magnitude of 16.
        """
        chosen = hidden.reshape(-1, hidden.shape[-1])[self.positions]
        labels = self.label_ids.to(hidden.device)
        # The parameters are read here and not kept: FSDP gathers them for the forward pass alone.
        weight: Any = self.head.weight
        bias: Any = self.head.bias
        label_bias = bias[labels].float() if bias is not None else None
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(chosen.float(), weight[labels].float(), label_bias).unsqueeze(0)


def strategy_log_probs(
    logits: torch.Tensor, choices: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the log-probs of the choices and the entropies of the distributions, in float32.

    Args:
        logits: ``(actions, labels)``.
        choices: ``(actions,)`` indices into the labels.
        temperature: ``(actions,)``, above 0.
    """
    log_probs = torch.log_softmax(logits.float() / temperature.unsqueeze(-1), dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(-1, choices.unsqueeze(-1)).squeeze(-1), entropy


@EngineRegistry.register(model_type=STRATEGY_MODEL, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class StrategyPolicyEngine(FSDPEngineWithLMHead):
    """Trains a policy that is the distribution over the strategy labels.

    Attributes:
        model_type: the engine's name in verl's registry.
        action_field: field of the rows that is 1 where a label was chosen.
        keep_vocabulary: the head also computes the logits over the vocabulary.
    """

    model_type = STRATEGY_MODEL
    action_field = "response_mask"
    keep_vocabulary = False

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
        head = module.get_output_embeddings()
        self._label_head = LabelHead(head, torch.tensor(labels), keep_vocabulary=self.keep_vocabulary)
        return module

    @contextlib.contextmanager
    def _as_language_model(self) -> Iterator[None]:
        """Presents a language model to verl while it builds the module: it builds no other kind but value models."""
        self.model_config.model_type = LANGUAGE_MODEL
        try:
            yield
        finally:
            self.model_config.model_type = self.model_type

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns verl's inputs, and sets the positions at which the head computes logits."""
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        stride = None if packed else model_inputs["input_ids"].shape[1]
        offsets = micro_batch["input_ids"].offsets()
        mask = micro_batch[self.action_field]
        # verl packs the rows or pads them; the outputs below are always packed.
        self._label_head.positions = action_positions(offsets, mask, stride)
        output_args["action_positions"] = action_positions(offsets, mask)
        return model_inputs, output_args

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Returns log-probs (and entropies) as nested ``(rows, sequence length)``, 0 where no label is predicted."""
        input_ids, positions = micro_batch["input_ids"], output_args["action_positions"]
        actions = input_ids.values()[positions + 1]
        choices = (actions.unsqueeze(-1) == self._label_head.label_ids.to(actions.device)).to(torch.uint8).argmax(-1)
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


@EngineRegistry.register(model_type=SHARED_PROMPT_MODEL, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class SharedPromptEngine(StrategyPolicyEngine):
    """Trains a strategy policy, and reads a prompt once for all rows of a micro-batch that begin with it.

    Rows are laid out as :mod:`verl_rsim.training.shared_prompts` describes, whether verl would pack or pad them.
    """

    model_type = SHARED_PROMPT_MODEL

    def _build_module(self) -> torch.nn.Module:
        module = super()._build_module()
        attention = module.config._attn_implementation
        if attention != "sdpa":
            fix = "planner.actor.use_prefix_grouper=True needs sdpa, which takes a mask of any shape"
            raise ConfigError("planner.model.override_config.attn_implementation", attention, fix)
        if "sliding_attention" in (getattr(module.config, "layer_types", None) or ()):
            fix = "this planner attends to a sliding window, which shared prompts do not respect; set it to False"
            raise ConfigError("planner.actor.use_prefix_grouper", True, fix)
        return module

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the model's inputs with shared prompts, and sets the positions at which the head computes logits."""
        input_ids, mask = micro_batch["input_ids"], micro_batch[self.action_field]
        shared = share_prompts(input_ids, mask.offsets().diff())
        positions = action_positions(input_ids.offsets(), mask)
        self._label_head.positions = shared.places[positions]
        model_inputs = {
            "input_ids": shared.input_ids,
            "position_ids": shared.position_ids,
            "attention_mask": shared.attention_mask,
        }
        return model_inputs, {"action_positions": positions}


@EngineRegistry.register(model_type=SHARED_MODEL, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class SharedPolicyEngine(StrategyPolicyEngine):
    """Trains one model in both roles: over the labels in the planner's rows, over the vocabulary in the reasoner's."""

    model_type = SHARED_MODEL
    action_field = LABEL_MASK
    keep_vocabulary = True

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        """Returns verl's outputs, with the labels' log-probs and entropies where a label was chosen."""
        labels = SimpleNamespace(logits=self._label_head.logits)
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
