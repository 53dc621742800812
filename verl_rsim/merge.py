"""``python -m verl_rsim.merge SHARDS FOLDER DTYPE``: a policy's shards as one Hugging Face folder.

verl's merger rounds every weight to bfloat16, which undoes most of a short training in float32; this one keeps what was
trained, or rounds to the type it is told.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoConfig
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger, merge_non_dtensor_shards


class ExactMerger(FSDPModelMerger):
    """verl's merger of FSDP shards, for weights of any type."""

    def __init__(self, config: ModelMergerConfig, dtype: torch.dtype):
        super().__init__(config)
        self.dtype = dtype

    def _load_and_merge_state_dicts(
        self, world_size: int, total_shards: int, mesh_shape: tuple[int, ...], mesh_dim_names: tuple[str, ...]
    ) -> dict[str, torch.Tensor]:
        """The whole weights; replicas beyond the first, as hybrid sharding has them, are not read."""
        names = [
            f"{self.config.local_dir}/model_world_size_{world_size}_rank_{rank}.pt" for rank in range(total_shards)
        ]
        shards = [torch.load(name, map_location="cpu", weights_only=False) for name in names]  # the job's own files
        return {key: self._whole(key, [shard.pop(key) for shard in shards]) for key in sorted(shards[0])}

    def _whole(self, key: str, parts: list[torch.Tensor]) -> torch.Tensor:
        if not isinstance(parts[0], DTensor):
            return merge_non_dtensor_shards(key, parts).to(self.dtype)
        local = [part.to_local().to(self.dtype) for part in parts]
        return self._merge_by_placement(local, parts[0].placements[-1])


def merge(shards: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write the policy whose shards verl saved in ``shards`` into ``folder``, tokenizer and all."""
    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(shards),
        target_dir=str(folder),
        hf_model_config_path=str(shards / "huggingface"),
    )
    ExactMerger(config, dtype).merge_and_save()
    written = AutoConfig.from_pretrained(folder)
    written.dtype = dtype  # verl's merger says bfloat16 whatever it was given
    written.save_pretrained(folder)


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]), getattr(torch, sys.argv[3]))
