"""A file that others made cannot run code here: pickles are refused, and no model's own code is loaded unasked."""

from __future__ import annotations

import ast
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch
from support.paths import ROOT

from verl_rsim.data.prepare_models import prepare_tiny
from verl_rsim.evaluation.models import Planner
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.safe_torch_load import read_tensors


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path) -> Iterator[Path]:
    """File that a malicious pickle creates; it must never exist."""
    yield tmp_path / "exploded"
    assert not (tmp_path / "exploded").exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    prepare_tiny(folder, "qwen2")
    return folder


def test_a_bomb_goes_off_where_nothing_is_refused(tmp_path):
    torch.save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "data.pt")
    torch.load(tmp_path / "data.pt", weights_only=False)
    assert (tmp_path / "exploded").is_dir()


def test_a_pickle_that_calls_functions_is_refused(tmp_path, mark):
    torch.save({"weight": Bomb(mark)}, tmp_path / "data.pt")
    with pytest.raises(DataError, match=r"data\.pt calls for posix\.mkdir: it was not loaded"):
        read_tensors(tmp_path / "data.pt")


def test_a_damaged_file_is_refused(tmp_path):
    torch.save(torch.ones(1000), tmp_path / "data.pt")
    os.truncate(tmp_path / "data.pt", 2000)
    with pytest.raises(DataError, match="is damaged"):
        read_tensors(tmp_path / "data.pt")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_position_in_the_data_is_read(tmp_path, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader
    from torchdata.stateful_dataloader.sampler import RandomSampler

    rows = list(range(8))
    made = [
        StatefulDataLoader(
            rows, 2, sampler=RandomSampler(rows, generator=torch.Generator().manual_seed(seed)), num_workers=workers
        )
        for seed in (0, 1)
    ]
    begun = iter(made[0])
    next(begun)
    torch.save(made[0].state_dict(), tmp_path / "data.pt")
    made[1].load_state_dict(read_tensors(tmp_path / "data.pt"))
    assert [batch.tolist() for batch in made[1]] == [batch.tolist() for batch in begun]


def test_a_checkpoint_with_a_bomb_is_not_exported(tmp_path, mark, tiny):
    from verl_rsim.training.checkpoint.merge_shards import merge

    shutil.copytree(tiny, tmp_path / "planner/huggingface")
    torch.save({"weight": Bomb(mark)}, tmp_path / "planner/model_world_size_1_rank_0.pt")
    (tmp_path / "planner/fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    with pytest.raises(DataError, match=r"rank_0\.pt calls for posix\.mkdir"):
        merge(tmp_path / "planner", tmp_path / "out", torch.bfloat16)


def with_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)


def with_vllm(folder: Path) -> None:
    from vllm.model_executor.model_loader.weight_utils import pt_weights_iterator

    list(pt_weights_iterator([str(folder / "pytorch_model.bin")], use_tqdm_on_load=False))


@pytest.mark.parametrize("load", [with_transformers, with_vllm])
def test_what_loads_models_refuses_weights_with_a_bomb(load, tmp_path, mark, tiny):
    folder = shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"weight": Bomb(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(UnpicklingError, match="Weights only load failed"):
        load(folder)


def test_an_adapter_with_a_bomb_is_refused(tmp_path, mark, tiny):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({"weight": Bomb(mark)}, tmp_path / "adapter_model.bin")
    with pytest.raises(UnpicklingError, match="Weights only load failed"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), tmp_path)


def test_a_models_own_code_is_not_run(tmp_path, mark, tiny):
    folder = shutil.copytree(tiny, tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(settings | own))
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Planner.from_pretrained(folder)


def test_the_reward_worker_runs_a_tokenizers_own_code_only_where_it_is_asked_to(tmp_path, mark, tiny, monkeypatch):
    from omegaconf import OmegaConf
    from verl.experimental.reward_loop import reward_loop

    folder = shutil.copytree(tiny, tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | own))
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    monkeypatch.setattr(reward_loop, "load_reward_manager", lambda *_, **__: None)
    worker = object.__new__(reward_loop.RewardLoopWorker)
    model = {"path": str(folder), "tokenizer_path": None, "trust_remote_code": False}
    reward = {"reward_model": {"enable": False}}
    worker.config = OmegaConf.create({"rsim": {}, "actor_rollout_ref": {"model": model}, "reward": reward})
    worker.reward_router_address = None
    worker._init_reward_fn()
    assert worker.input_tokenizer.decode(worker.input_tokenizer.encode("1 + 1")) == "1 + 1"

    asked = []
    monkeypatch.setattr(reward_loop, "hf_tokenizer", lambda path, **options: asked.append(options))
    worker._init_reward_fn()
    worker.config.actor_rollout_ref.model.trust_remote_code = True
    worker._init_reward_fn()
    assert asked == [{"trust_remote_code": False}, {"trust_remote_code": True}]


SANDBOXED = {"reward/sandbox/guest_program.py", "reward/sandbox/guest_tests.py"}
"""Run graded programs and their tests, inside of the sandbox only."""
OWN = ("Planner", "Reasoner", "cls", "PeftConfig", "PeftModel", "GenerationConfig")
"""Classes whose from_pretrained runs no code from a model's folder."""
UNPICKLERS = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Yields the calls that could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if name.name in {*UNPICKLERS, "pickle"})
        elif isinstance(node, ast.ImportFrom) and (node.module in UNPICKLERS or node.module == "pickle"):
            yield from (f"from {node.module}" for name in node.names if not name.name.endswith("Error"))
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {each.arg: ast.unparse(each.value) for each in node.keywords}
            if name in ("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "pd.read_pickle"):
                yield name
            elif name == "torch.load" and given.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            elif given.get("allow_pickle") == "True" or given.get("shell") == "True":
                yield f"{name} with allow_pickle or shell"
            elif name.endswith(".from_pretrained") and not name.startswith(OWN) and None not in given:
                asked = given.get("trust_remote_code", "")
                if asked != "False" and not asked.endswith(".trust_remote_code"):
                    yield f"{name} without trust_remote_code"


@pytest.mark.parametrize("folder", ["verl_rsim", "reward", "examples", "benchmarks"])
def test_no_code_here_runs_what_a_file_holds(folder):
    paths = [path for path in sorted((ROOT / folder).rglob("*.py")) if str(path.relative_to(ROOT)) not in SANDBOXED]
    found = {f"{path}: {what}" for path in paths for what in unsafe(ast.parse(path.read_text()))}
    assert paths
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoTokenizer.from_pretrained(path)",
        "AutoConfig.from_pretrained(path, trust_remote_code=True)",
        "subprocess.run(line, shell=True)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_the_search_finds(line):
    assert len(list(unsafe(ast.parse(line)))) == 1
