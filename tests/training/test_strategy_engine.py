"""The strategy policy's numerics against a few lines of plain torch, through verl's own engine classes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.engine


def test_labels_over_the_head_never_make_vocabulary_logits_and_match_plain_torch():
    from verl_rsim.training.strategy_engine import LabelHead, strategy_log_probs

    torch.manual_seed(0)
    head = torch.nn.Linear(16, 500)
    labels = torch.tensor([7, 3, 499, 12, 100, 101, 0, 250, 42])
    hidden = torch.randn(1, 30, 16, requires_grad=True)
    positions = torch.tensor([2, 3, 17, 29])
    choices = torch.tensor([0, 8, 4, 4])
    temperature = torch.tensor([1.0, 0.5, 2.0, 1.0])

    full = torch.nn.functional.linear(hidden[0], head.weight, head.bias)[positions][:, labels]
    expected = torch.log_softmax(full / temperature[:, None], -1)
    expected_entropy = -(expected.exp() * expected).sum(-1)
    expected[torch.arange(4), choices].sum().backward()
    wanted = (hidden.grad.clone(), head.weight.grad.clone(), head.bias.grad.clone())
    hidden.grad = head.weight.grad = head.bias.grad = None

    LabelHead(head, labels).positions = positions
    logits = head(hidden)
    assert logits.shape == (1, 4, 9)
    log_probs, entropy = strategy_log_probs(logits.squeeze(0), choices, temperature)
    torch.testing.assert_close(log_probs, expected[torch.arange(4), choices])
    torch.testing.assert_close(entropy, expected_entropy)
    log_probs.sum().backward()
    for got, want in zip((hidden.grad, head.weight.grad, head.bias.grad), wanted, strict=True):
        torch.testing.assert_close(got, want)
    assert "label_ids" not in head.state_dict()


def test_action_positions_of_packed_and_padded_rows():
    from verl_rsim.training.strategy_engine import action_positions

    # Rows of 5 and 4 tokens, responses of 3 and 2; generated are the 1st and 3rd, and the 2nd.
    offsets = torch.tensor([0, 5, 9])
    mask = torch.nested.as_nested_tensor([torch.tensor([1, 0, 1]), torch.tensor([0, 1])], layout=torch.jagged)
    assert action_positions(offsets, mask).tolist() == [1, 3, 7]
    assert action_positions(offsets, mask, row_stride=6).tolist() == [1, 3, 6 + 2]


SET_UP = '''
import os, sys, torch
from functools import partial
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.trainer.config import CheckpointConfig
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry
from transformers import AutoModelForCausalLM

path, strategy, packed, checkpointing, lora = sys.argv[1], sys.argv[2], *(a == "1" for a in sys.argv[3:6])
model_type, param = sys.argv[7:9]
rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.distributed.init_process_group(
    "gloo", init_method="tcp://127.0.0.1:" + sys.argv[6], rank=rank, world_size=ranks)
mixed = {"param_dtype": param, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
exact = param == "fp32"
model = HFModelConfig(
    path=path, use_remove_padding=packed, enable_gradient_checkpointing=checkpointing, model_type=model_type,
    lora_rank=4 if lora else 0, target_modules="all-linear", override_config={"attn_implementation": "sdpa"},
)
engine = EngineRegistry.new(
    model_type=model_type, backend=strategy, model_config=model,
    engine_config=FSDPEngineConfig(
        strategy=strategy, model_dtype="fp32", mixed_precision=mixed, use_torch_compile=False,
        use_orig_params=ranks == 1),
    optimizer_config=FSDPOptimizerConfig(lr=0.1, total_training_steps=4, clip_grad=1e9),
    checkpoint_config=CheckpointConfig(),
)
engine.initialize()

torch.manual_seed(3)
labels = [model.tokenizer.encode(x, add_special_tokens=False)[0] for x in "123456789"]
rows, masks = [], []
for length, response, acts in ((12, 6, (0, 3, 5)), (9, 4, (3,)), (7, 2, ()), (8, 3, (1,))):
    row = torch.randint(20, 200, (length,))
    mask = torch.zeros(response, dtype=torch.int64)
    for a in acts:
        row[length - response + a] = labels[(length + a) % 9]
        mask[a] = 1
    rows.append(row); masks.append(mask)
if model_type == "shared_prompt_policy":  # episodes of two questions, one of them sampled three times
    rows[1] = torch.cat([rows[0][:6], rows[1][-4:]])
    rows[3] = torch.cat([rows[0][:6], rows[3][-3:]])
chosen = list(masks)
if model_type == "language_model":
    chosen = [torch.zeros_like(mask) for mask in masks]
if model_type == "shared_policy":  # and the reasoner's rows, over the vocabulary
    for length, response in ((10, 5), (6, 3)):
        rows.append(torch.randint(20, 200, (length,)))
        masks.append(torch.randint(0, 2, (response,)) | torch.eye(response, dtype=torch.int64)[0])
        chosen.append(torch.zeros(response, dtype=torch.int64))
nest = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
T = 0.7
batch = tu.get_tensordict({
    "input_ids": nest(rows), "position_ids": nest([torch.arange(len(r)) for r in rows]),
    "response_mask": nest(masks), "loss_mask": nest(masks),
    "label_mask": nest(chosen)})
tu.assign_non_tensor(batch, temperature=T, use_remove_padding=packed, pad_mode=DatasetPadMode.NO_PADDING,
    calculate_entropy=True, use_dynamic_bsz=False, micro_batch_size_per_gpu=len(rows), pad_token_id=0,
    max_token_len_per_gpu=4096)

def plain():
    """The same quantities with transformers and full-vocabulary logits: log-probs and entropies of each row."""
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    values, entropies = [], []
    for row, mask, labelled in zip(rows, masks, chosen):
        logits = reference(row[None]).logits[0]
        lp, ent = [torch.zeros(()) for _ in row], [torch.zeros(()) for _ in row]
        for a in mask.nonzero().flatten().tolist():
            position = len(row) - len(mask) + a - 1
            among = labels if labelled[a] else list(range(logits.shape[-1]))
            all_of_them = torch.log_softmax(logits[position, among] / T, -1)
            lp[position] = all_of_them[among.index(row[position + 1].item())]
            ent[position] = -(all_of_them.exp() * all_of_them).sum()
        values.append(torch.stack(lp)); entropies.append(torch.stack(ent))
    return reference, values, entropies

def gradients(compute, wanted):
    """Compare the engine's gradients with what plain torch says they are."""
    with engine.train_mode():
        engine.optimizer_zero_grad()
        found = 0
        engine.forward_backward_batch(batch.clone(), compute, forward_only=False)
        for name, p in engine.module.named_parameters():
            name = name.replace("_fsdp_wrapped_module.", "")
            if p.grad is None or p.grad.numel() == 0: continue
            grad = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
            assert torch.isfinite(grad).all()
            if lora:
                assert "lora_" in name, name
                found += int(grad.abs().sum() > 0)
            elif name in wanted:
                if exact:
                    torch.testing.assert_close(grad, wanted[name], atol=3e-5, rtol=1e-3)
                else:
                    assert (grad - wanted[name]).norm() <= 0.05 * wanted[name].norm(), name
                found += 1
        assert found >= (4 if lora else len(wanted)), found

reference, values, entropies = plain()
generated = torch.cat(values).detach() != 0
'''

NUMERICS = """with engine.eval_mode():
    out = engine.forward_backward_batch(batch.clone(), None, forward_only=True)
got = out["model_output"] if isinstance(out, dict) else out[0]["model_output"]
for name, wanted in (("log_probs", values), ("entropy", entropies)):
    found = got[name].values() * (generated if model_type == "shared_policy" else 1)
    torch.testing.assert_close(found.float(), torch.cat(wanted).detach(), atol=2e-5 if exact else 0.05, rtol=1e-4)

updating = []
def loss(model_output, data, dp_group=None):
    updating.append(model_output["log_probs"].values().detach())
    return -model_output["log_probs"].values()[generated].sum(), {}

(-torch.cat(values).sum()).backward()
gradients(loss, {n: p.grad for n, p in reference.named_parameters()})
# each token's ratio in the first mini-batch, whose old log-probs were computed without gradients
torch.testing.assert_close((updating[0] - got["log_probs"].values()).exp()[generated], torch.ones(generated.sum()))
if strategy == "fsdp2":  # verl cannot sync the weights of the first FSDP on a CPU; jobs refuse it there
    names = {n for n, _ in engine.get_per_tensor_param()[0]}
    assert not any("label_ids" in n for n in names)
    assert lora or {"model.embed_tokens.weight"} <= names, names
print("numerics agree")
"""

LOSS = """from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

aggregation, divergence = sys.argv[9:11]
config = ActorConfig(
    strategy=strategy, rollout_n=1, ppo_mini_batch_size=len(rows), ppo_micro_batch_size_per_gpu=1, clip_ratio=0.2,
    entropy_coeff=0.1, use_kl_loss=True, kl_loss_coef=0.3, kl_loss_type=divergence, loss_agg_mode=aggregation)
torch.manual_seed(4)
now = [v[len(v) - len(m) - 1:-1] for v, m in zip(values, masks)]  # at each token of the response
ent = [e[len(e) - len(m) - 1:-1] for e, m in zip(entropies, masks)]
noise = lambda v, size: v.detach() + size * torch.randn(len(v))
old, ref = [noise(v, 0.5) for v in now], [noise(v, 1.0) for v in now]
advantages = [torch.randn(()).expand(len(v)).clone() for v in now]
first = masks[0].nonzero()[0]
old[0][first], advantages[0][:] = now[0][first].detach() - 1.5, -1.0  # a ratio of 4.5, which the dual clip holds at 3
for name, field in (("old_log_probs", old), ("ref_log_prob", ref), ("advantages", advantages),
                    ("prompts", [r[:len(r) - len(m)] for r, m in zip(rows, masks)]),
                    ("responses", [r[len(r) - len(m):] for r, m in zip(rows, masks)])):
    batch[name] = nest(field)
tu.assign_non_tensor(batch, global_batch_size=len(rows), micro_batch_size_per_gpu=1)

sums, tokens, clipped, held = [], [], 0, 0
for v, e, o, r, adv, m in zip(now, ent, old, ref, advantages, masks):
    ratio, gap = (v - o).exp(), r - v
    worst = torch.maximum(-adv * ratio, -adv * ratio.clamp(0.8, 1.2))
    clipped += ((worst != -adv * ratio) & m.bool()).sum().item()
    held += ((adv < 0) & (worst > -3.0 * adv) & m.bool()).sum().item()
    worst = torch.where(adv < 0, torch.minimum(worst, -3.0 * adv), worst)  # dual clip
    penalty = {"kl": -gap, "mse": gap ** 2 / 2, "low_var_kl": gap.exp() - 1 - gap}[divergence]
    sums.append(((worst - 0.1 * e + 0.3 * penalty) * m).sum())
    tokens.append(m.sum())
assert clipped > 0 and held > 0, "nothing was clipped"
sums, tokens = torch.stack(sums), torch.stack(tokens)
means = {"token-mean": sums.sum() / tokens.sum(), "seq-mean-token-sum": sums.sum() / len(rows),
         "seq-mean-token-mean": (sums / tokens.clamp(min=1)).sum() / len(rows)}
means[aggregation].backward()
wanted = {n: p.grad for n, p in reference.named_parameters()}
batch = tu.chunk_tensordict(batch, ranks)[rank]
if ranks == 1:
    gradients(partial(ppo_loss, config), wanted)
else:
    with engine.eval_mode():
        found = engine.forward_backward_batch(batch.clone(), None, forward_only=True)["model_output"]["log_probs"]
    mine = torch.cat([v for i, v in enumerate(values) if i // (len(rows) // ranks) == rank]).detach()
    torch.testing.assert_close(found.values().float() * (mine != 0), mine, atol=2e-5 if exact else 0.05, rtol=1e-4)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch.clone(), partial(ppo_loss, config), forward_only=False)
        norm = float(engine.optimizer_step())
    whole = torch.stack([g.norm() for g in wanted.values()]).norm().item()
    assert abs(norm - whole) <= (1e-4 if exact else 0.03) * whole, (norm, whole)
print("losses agree")
"""


IMPORTED_ONCE = SET_UP[: SET_UP.index("\npath, strategy")]
SERVER = (
    IMPORTED_ONCE
    + """
import json, signal, traceback

for line in sys.stdin:
    case = json.loads(line)
    children = []
    for rank in range(case["ranks"]):
        child = os.fork()
        if not child:
            signal.alarm(300)
            output = os.open(f"{case['output']}{rank}", os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(case["ranks"]))
            sys.argv = case["argv"]
            code = 1
            try:
                exec(case["script"], {"__name__": "__main__"})
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""
)


@pytest.fixture(scope="module")
def engine_server() -> Iterator[subprocess.Popen]:
    """A process that has imported verl and runs each case in a fork of itself: the imports take longer than a case."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        yield server
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(
    server: subprocess.Popen,
    folder: Path,
    script: str,
    model: Path,
    strategy: str,
    flags: tuple[bool, ...],
    *rest: str,
    ranks: int = 1,
) -> list[str]:
    """What the processes of a case print; the flags are packed, checkpointing and lora."""
    arguments = ["engine.py", str(model), strategy, *(str(int(flag)) for flag in flags), str(free_port()), *rest]
    case = {"script": SET_UP + script, "argv": arguments, "ranks": ranks, "output": str(folder / "output")}
    server.stdin.write(json.dumps(case) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    while answer and not answer.startswith("["):  # a warning of an import
        answer = server.stdout.readline()
    outputs = [(folder / f"output{rank}").read_text() for rank in range(ranks)]
    assert json.loads(answer) == [0] * ranks, "\n".join(output[-3000:] for output in outputs)
    return outputs


@pytest.mark.parametrize(
    ("model_type", "family", "strategy", "packed", "checkpointing", "lora", "param"),
    [
        ("strategy_policy", "llama", "fsdp2", True, True, False, "fp32"),
        ("strategy_policy", "qwen2", "fsdp2", True, False, False, "fp32"),
        ("strategy_policy", "qwen2", "fsdp2", False, False, False, "fp32"),
        ("strategy_policy", "llama", "fsdp", True, False, False, "fp32"),
        ("strategy_policy", "llama", "fsdp2", True, False, True, "fp32"),
        ("strategy_policy", "llama", "fsdp2", True, True, False, "bf16"),
        ("shared_prompt_policy", "llama", "fsdp2", True, True, False, "fp32"),
        ("shared_prompt_policy", "qwen2", "fsdp2", False, False, True, "fp32"),
        ("shared_prompt_policy", "qwen2", "fsdp2", False, False, False, "bf16"),
        ("shared_policy", "llama", "fsdp2", True, True, False, "fp32"),
        ("shared_policy", "qwen2", "fsdp2", False, False, False, "fp32"),
        ("shared_policy", "qwen2", "fsdp", True, False, True, "fp32"),
        ("shared_policy", "llama", "fsdp2", True, True, False, "bf16"),
    ],
    ids=["untied-checkpointing", "tied", "padded", "fsdp1", "lora", "bfloat16",
         "shared-prompt", "shared-prompt-lora", "shared-prompt-bfloat16",
         "shared-untied", "shared-padded", "shared-lora", "shared-bfloat16"],
)  # fmt: skip
def test_the_engine_agrees_with_plain_torch(
    home: Path, engine_server, tmp_path, model_type, family, strategy, packed, checkpointing, lora, param
):
    model = home / f"models/tiny-{family}"
    said = run(engine_server, tmp_path, NUMERICS, model, strategy, (packed, checkpointing, lora), model_type, param)
    assert "numerics agree" in said[0]


@pytest.mark.parametrize(
    ("model_type", "family", "aggregation", "divergence"),
    [
        ("strategy_policy", "qwen2", "token-mean", "low_var_kl"),
        ("strategy_policy", "llama", "seq-mean-token-sum", "mse"),
        ("shared_prompt_policy", "llama", "token-mean", "low_var_kl"),
        ("language_model", "llama", "token-mean", "low_var_kl"),
        ("language_model", "qwen2", "seq-mean-token-mean", "kl"),
        ("shared_policy", "llama", "token-mean", "low_var_kl"),
    ],
    ids=["planner-tokens", "planner-rows", "planner-shared-prompt", "reasoner-tokens", "reasoner-rows", "shared"],
)
def test_the_whole_loss_of_a_mini_batch_is_that_of_plain_torch(
    home: Path, engine_server, tmp_path, model_type, family, aggregation, divergence
):
    """Clipping, entropy, KL and aggregation, over micro-batches of one row; language_model is the reasoner's engine."""
    model = home / f"models/tiny-{family}"
    said = run(
        engine_server, tmp_path, LOSS, model, "fsdp2", (True, False, False), model_type, "fp32", aggregation, divergence
    )
    assert "losses agree" in said[0]


@pytest.mark.parametrize(
    ("model_type", "family", "strategy", "param"),
    [
        ("strategy_policy", "llama", "fsdp", "fp32"),
        ("shared_policy", "llama", "fsdp", "bf16"),
    ],
)
def test_two_ranks_that_share_the_weights_agree_with_plain_torch(
    home: Path, engine_server, tmp_path, model_type, family, strategy, param
):
    """Flat parameters, sharded, and mixed precision: what a job on GPUs has unless it is told otherwise."""
    said = run(engine_server, tmp_path, LOSS, home / f"models/tiny-{family}", strategy, (True, True, False),
               model_type, param, "token-mean", "low_var_kl", ranks=2)  # fmt: skip
    assert ["losses agree" in each for each in said] == [True, True]
