from __future__ import annotations

import json

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_rsim.checkpoint import SavedState, finish, step_folder
from verl_rsim.errors import ConfigError, DataError
from verl_rsim.export import export_policies
from verl_rsim.models import prepare_tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint's root of a planner that two GPUs shared, and the planner's weights in float32."""
    root = tmp_path_factory.mktemp("run")
    prepare_tiny(root / "base", "qwen2")
    model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    folder = step_folder(root, 5) / "planner"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    weights = {name: value + 1e-6 * torch.randn(value.shape) for name, value in model.state_dict().items()}
    for rank in (0, 1):
        dist.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("fsdp",))
        shards = {
            name: DTensor.from_local(
                value.chunk(2)[rank].clone(),
                mesh,
                [Shard(0)],
                run_check=False,
                shape=value.shape,
                stride=value.stride(),
            )
            for name, value in weights.items()
        }
        torch.save(shards, folder / f"model_world_size_2_rank_{rank}.pt")
        dist.destroy_process_group()
    (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 2}))
    model.config.save_pretrained(folder / "huggingface")
    AutoTokenizer.from_pretrained(root / "base").save_pretrained(folder / "huggingface")
    finish(root, SavedState(5, 0, ("planner",), dtypes={"planner": "float32"}), None)
    return root, weights


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_an_export_is_what_was_trained(trained, dtype, tmp_path):
    root, weights = trained
    wanted = torch.float32 if dtype is None else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(export_policies(root, tmp_path, dtype)["planner"], dtype="auto")
    assert model.dtype == wanted
    for name, value in model.state_dict().items():
        assert torch.equal(
            value, weights["model.embed_tokens.weight" if name == "lm_head.weight" else name].to(wanted)
        ), name


def test_bad_exports(trained, tmp_path):
    root, _ = trained
    with pytest.raises(ConfigError, match="--dtype='int8'"):
        export_policies(root, tmp_path, "int8")
    broken = tmp_path / "run"
    (step_folder(broken, 1) / "planner").mkdir(parents=True)
    finish(broken, SavedState(1, 0, ("planner",)), None)
    with pytest.raises(DataError, match="cannot be merged"):
        export_policies(broken, tmp_path / "out")
