"""Merges a policy's shards into one Hugging Face folder.

``python -m verl_rsim.training.checkpoint.merge_shards SHARDS FOLDER DTYPE [BASE]``

verl's merger rounds every weight to bfloat16, which undoes most of a short training run in float32, and it leaves a
LoRA adapter beside the untrained model. This merger rounds to the data type that it is given and merges the adapter
into the weights. The adapter by itself is in ``lora_adapter``, in PEFT's layout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig, PeftModel
from torch.distributed.tensor import DTensor
from transformers import AutoConfig
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger, merge_non_dtensor_shards

from verl_rsim.utils.safe_torch_load import read_tensors

LORA_META = "lora_train_meta.json"
"""File that verl saves beside the shards of a LoRA policy; it holds the adapter's rank and alpha."""
ADAPTER = "lora_adapter"
"""Folder inside the policy's folder to which verl's merger writes the adapter."""


class ExactMerger(FSDPModelMerger):
    """Extends verl's merger of FSDP shards to weights of any data type.

    Args:
        config: verl's configuration of a merge.
        dtype: data type of the merged weights.
        base: model from which the policy was trained; loaded only if the shards hold nothing but an adapter.
    """

    def __init__(self, config: ModelMergerConfig, dtype: torch.dtype, base: str | None):
        super().__init__(config)
        self.dtype, self.base = dtype, base

    def _load_and_merge_state_dicts(
        self, world_size: int, total_shards: int, mesh_shape: tuple[int, ...], mesh_dim_names: tuple[str, ...]
    ) -> dict[str, torch.Tensor]:
        """Returns the full weights by name.

        With hybrid sharding the ranks from ``total_shards`` on hold replicas, which are not read.
        """
        shards = [read_tensors(self._shard(world_size, rank)) for rank in range(total_shards)]
        full = {}
        for key in sorted(shards[0]):
            # pop frees each shard as soon as it is merged; the peak is then one copy of the model, not two
            full[key] = self._merge_parts(key, [shard.pop(key) for shard in shards])
        if any("lora_" not in key for key in full):
            return full
        base = self.get_transformers_auto_model_class().from_pretrained(
            self.base, dtype=self.dtype, trust_remote_code=False
        )
        return full | base.state_dict()

    def _load_rank_zero_state_dict(self, world_size: int) -> dict[str, torch.Tensor]:
        # verl's own method loads with weights_only=False, which runs code that the file may hold.
        return read_tensors(self._shard(world_size, 0))

    def _shard(self, world_size: int, rank: int) -> Path:
        return Path(cast(str, self.config.local_dir)) / f"model_world_size_{world_size}_rank_{rank}.pt"

    def _merge_parts(self, key: str, parts: list[torch.Tensor]) -> torch.Tensor:
        first = parts[0]
        if not isinstance(first, DTensor):  # a buffer, or a parameter that FSDP did not shard
            return merge_non_dtensor_shards(key, parts).to(self.dtype)
        local = [cast(DTensor, part).to_local().to(self.dtype) for part in parts]
        # The last dimension of the mesh is the sharded one; with hybrid sharding the first one holds replicas.
        return self._merge_by_placement(local, first.placements[-1])

    def save_lora_adapter(self, state_dict: dict[str, torch.Tensor]) -> str | None:
        """Writes the adapter's folder as verl does and adds the base model's name, which PEFT needs to load it."""
        folder = super().save_lora_adapter(state_dict)
        if folder and self.base:
            settings = PeftConfig.from_pretrained(folder)
            settings.base_model_name_or_path = self.base
            settings.save_pretrained(folder)
        return folder

    def add_adapter(self, folder: Path, dtype: torch.dtype) -> None:
        """Merges the adapter in ``folder`` into the weights in ``folder`` and rounds the sums to ``dtype``."""
        base = self.get_transformers_auto_model_class().from_pretrained(
            folder, dtype=self.dtype, trust_remote_code=False
        )
        merged = PeftModel.from_pretrained(base, folder / ADAPTER).merge_and_unload()
        merged.to(dtype).save_pretrained(folder)


def merge(shards: Path, folder: Path, dtype: torch.dtype, base: str | None = None) -> None:
    """Merges the shards of a policy into a Hugging Face folder, with its tokenizer and configuration.

    Args:
        shards: the folder in which verl saved the policy.
        folder: the destination.
        dtype: data type of the written weights.
        base: model from which the policy was trained; needed if the shards hold nothing but an adapter.
    """
    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(shards),
        target_dir=str(folder),
        hf_model_config_path=str(shards / "huggingface"),
    )
    has_adapter = (shards / LORA_META).is_file()
    # With an adapter the merge is done in float32, so that the sum of weights and adapter is rounded only once.
    merger = ExactMerger(config, torch.float32 if has_adapter else dtype, base)
    merger.merge_and_save()
    if has_adapter:
        merger.add_adapter(folder, dtype)
    written = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    written.dtype = dtype  # verl's merger always writes bfloat16 into the configuration
    written.save_pretrained(folder)


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]), getattr(torch, sys.argv[3]), *sys.argv[4:])
