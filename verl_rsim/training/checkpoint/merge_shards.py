"""Merges a policy's shards into one Hugging Face folder.

``python -m verl_rsim.training.checkpoint.merge_shards SHARDS FOLDER DTYPE [BASE]``

verl's merger rounds every weight to bfloat16, which undoes most of a short training in float32, and leaves a LoRA
adapter beside an untrained model. This one keeps what was trained, or rounds to the type it is told, and adds the
adapter to the weights; the adapter itself is in ``lora_adapter``, in the layout of PEFT.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from torch.distributed.tensor import DTensor
from transformers import AutoConfig
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger, merge_non_dtensor_shards

from verl_rsim.utils.safe_torch_load import read_tensors

LORA_META = "lora_train_meta.json"
"""What verl saves of an adapter beside a LoRA policy's shards: its rank and its alpha."""
ADAPTER = "lora_adapter"
"""Where verl's merger puts the adapter, inside the policy's folder."""


class ExactMerger(FSDPModelMerger):
    """verl's merger of FSDP shards, for weights of any type.

    ``base`` is the model that the policy was trained from; read where the shards hold an adapter alone.
    """

    def __init__(self, config: ModelMergerConfig, dtype: torch.dtype, base: str | None):
        super().__init__(config)
        self.dtype, self.base = dtype, base

    def _load_and_merge_state_dicts(
        self, world_size: int, total_shards: int, mesh_shape: tuple[int, ...], mesh_dim_names: tuple[str, ...]
    ) -> dict[str, torch.Tensor]:
        """The whole weights; replicas beyond the first, as hybrid sharding has them, are not read."""
        shards = [read_tensors(self._shard(world_size, rank)) for rank in range(total_shards)]
        whole = {key: self._whole(key, [shard.pop(key) for shard in shards]) for key in sorted(shards[0])}
        if any("lora_" not in key for key in whole):
            return whole
        base = self.get_transformers_auto_model_class().from_pretrained(
            self.base, dtype=self.dtype, trust_remote_code=False
        )
        return whole | base.state_dict()

    def _load_rank_zero_state_dict(self, world_size: int) -> dict[str, torch.Tensor]:
        return read_tensors(self._shard(world_size, 0))  # verl's own would run what the file holds

    def _shard(self, world_size: int, rank: int) -> Path:
        return Path(self.config.local_dir) / f"model_world_size_{world_size}_rank_{rank}.pt"

    def _whole(self, key: str, parts: list[torch.Tensor]) -> torch.Tensor:
        if not isinstance(parts[0], DTensor):
            return merge_non_dtensor_shards(key, parts).to(self.dtype)
        local = [part.to_local().to(self.dtype) for part in parts]
        return self._merge_by_placement(local, parts[0].placements[-1])

    def save_lora_adapter(self, state_dict: dict[str, torch.Tensor]) -> str | None:
        """verl's adapter folder, which tells PEFT what model the adapter belongs to."""
        folder = super().save_lora_adapter(state_dict)
        if folder and self.base:
            settings = PeftConfig.from_pretrained(folder)
            settings.base_model_name_or_path = self.base
            settings.save_pretrained(folder)
        return folder

    def add_adapter(self, folder: Path, dtype: torch.dtype) -> None:
        """Add the adapter beside the weights in ``folder`` to them, and round them to ``dtype``."""
        base = self.get_transformers_auto_model_class().from_pretrained(
            folder, dtype=self.dtype, trust_remote_code=False
        )
        merged = PeftModel.from_pretrained(base, folder / ADAPTER).merge_and_unload()
        merged.to(dtype).save_pretrained(folder)


def merge(shards: Path, folder: Path, dtype: torch.dtype, base: str | None = None) -> None:
    """Write the policy whose shards verl saved in ``shards`` into ``folder``, tokenizer and all.

    ``base`` is the model it was trained from, needed if the shards hold an adapter alone.
    """
    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(shards),
        target_dir=str(folder),
        hf_model_config_path=str(shards / "huggingface"),
    )
    has_adapter = (shards / LORA_META).is_file()
    merger = ExactMerger(config, torch.float32 if has_adapter else dtype, base)  # a sum is rounded once
    merger.merge_and_save()
    if has_adapter:
        merger.add_adapter(folder, dtype)
    written = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    written.dtype = dtype  # verl's merger says bfloat16 whatever it was given
    written.save_pretrained(folder)


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]), getattr(torch, sys.argv[3]), *sys.argv[4:])
