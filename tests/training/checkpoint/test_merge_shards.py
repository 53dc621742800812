from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from verl_rsim.data.prepare_models import prepare_tiny
from verl_rsim.training.checkpoint.export import export_policies
from verl_rsim.training.checkpoint.store import SavedState, finish, step_folder
from verl_rsim.utils.errors import ConfigError, DataError

pytestmark = pytest.mark.engine


def save_on_two_gpus(folder: Path, base: Path, weights: dict[str, torch.Tensor]) -> None:
    """Writes what verl saves of a policy with these weights that is sharded over two GPUs."""
    folder.mkdir(parents=True)
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
    AutoConfig.from_pretrained(base).save_pretrained(folder / "huggingface")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "huggingface")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    prepare_tiny(folder, "qwen2")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base):
    """Root of a checkpoint of a planner sharded over two GPUs, and the planner's weights in float32."""
    root = tmp_path_factory.mktemp("run")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(0)
    weights = {name: value + 1e-6 * torch.randn(value.shape) for name, value in model.state_dict().items()}
    save_on_two_gpus(step_folder(root, 5) / "planner", base, weights)
    finish(root, SavedState(step=5, stage=0, trained=("planner",), dtypes={"planner": "float32"}), None)
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


RANK, ALPHA = 4, 12


@pytest.fixture(scope="module")
def adapter(base) -> dict[str, torch.Tensor]:
    """The weights of a planner with a LoRA adapter on its base model, by the names that verl saves them under."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules="all-linear"))
    return {k: torch.randn(v.shape) if "lora_" in k else v.clone() for k, v in model.state_dict().items()}


def adapted(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Base weights plus alpha / rank * B A, from the definition."""
    plain = {}
    for name, value in weights.items():
        module = name.removesuffix(".base_layer.weight")
        if "lora_" in name:
            continue
        if module != name:
            up, down = (weights[f"{module}.lora_{x}.default.weight"] for x in "BA")
            value = value + ALPHA / RANK * up @ down
        plain[name.removeprefix("base_model.model.").replace(".base_layer", "")] = value
    return plain


@pytest.mark.parametrize("only", [False, True], ids=["whole", "save_lora_only"])
def test_an_export_of_lora_is_the_sum_and_the_adapter_beside_it(adapter, base, only, tmp_path):
    folder = step_folder(tmp_path, 3) / "planner"
    save_on_two_gpus(folder, base, {k: v for k, v in adapter.items() if "lora_" in k or not only})
    (folder / "lora_train_meta.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA, "task_type": "CAUSAL_LM"}))
    described = {"dtypes": {"planner": "float32"}, "models": {"planner": str(base)}}
    finish(tmp_path, SavedState(step=3, stage=0, trained=("planner",), **described), None)
    exported = export_policies(tmp_path, tmp_path / "out")["planner"]
    merged = AutoModelForCausalLM.from_pretrained(exported, dtype="auto")
    assert merged.dtype == torch.float32
    for name, value in adapted(adapter).items():
        torch.testing.assert_close(merged.state_dict()[name], value, rtol=1e-5, atol=1e-5, msg=name)

    words = torch.arange(5).unsqueeze(0)
    beside = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    beside = PeftModel.from_pretrained(beside, exported / "lora_adapter")
    torch.testing.assert_close(beside(words).logits, merged(words).logits, rtol=1e-4, atol=1e-4)
    told = json.loads((exported / "lora_adapter/adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(base)


def test_bad_exports(trained, tmp_path):
    root, _ = trained
    with pytest.raises(ConfigError, match="--dtype='int8'"):
        export_policies(root, tmp_path, "int8")
    broken = tmp_path / "run"
    (step_folder(broken, 1) / "planner").mkdir(parents=True)
    finish(broken, SavedState(step=1, stage=0, trained=("planner",)), None)
    with pytest.raises(DataError, match="cannot be merged"):
        export_policies(broken, tmp_path / "out")
