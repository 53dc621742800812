"""``verl-rsim doctor RECIPE``: whether this recipe, with these overrides, can start and will fit.

A stock verl job is checked by verl, when it starts; here only whether its model will fit.
Loads tokenizers and configurations, no weights.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from verl_rsim.config.recipes import compose_recipe
from verl_rsim.config.schema import gpus_of
from verl_rsim.training import cpu
from verl_rsim.training.checkpoint.store import SHARED
from verl_rsim.training.preflight import hardware
from verl_rsim.training.preflight.doctor import GIB, Finding, broken, fine, warning
from verl_rsim.training.preflight.memory_estimate import LABELS, Line, ModelSize, RolePlan, estimate, peaks
from verl_rsim.training.preflight.meta_model import adapter_parameters, empty_model
from verl_rsim.training.preflight.verl_option_rules import check_mode
from verl_rsim.utils.errors import RsimError

TIGHT = 0.9
"""A peak above this share of the memory is a warning: the estimate is good to about a fifth."""
SMALLEST_SHOWN = GIB // 100
BYTES = {"fp32": 4, "float32": 4}


def check_job(recipe: str, overrides: Sequence[str], console: Console) -> Iterator[Finding]:
    """The recipe's settings, models and memory; prints the table of the memory."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # verl's, of engines that nobody asked for
            config = compose_recipe(recipe, overrides)
            check_mode(config)
            if config.trainer.v1.trainer_mode != "rsim":
                plans = [plan_of(config, "reasoner", frozen=False)]
                yield fine("recipe", f"{recipe} is a stock verl job; its settings are checked by verl, at its start")
                yield from _check_fit(config, plans, console)
                return
            from verl_rsim.training.preflight.validate_job import validate_job

            rsim = validate_job(config)
    except (HydraException, OmegaConfBaseException) as error:
        yield broken("recipe", f"{recipe}: {error}", "name keys that it has")
        return
    except RsimError as error:
        yield broken("recipe", str(error), "change that setting")
        return
    except (OSError, ValueError) as error:  # transformers': no such model, or one it does not know
        yield broken("recipe", str(error).strip().splitlines()[0], "check the models' paths")
        return
    yield fine("recipe", f"{recipe} can start: settings, data, tokenizers and row budgets go together")
    yield from _check_models(config, rsim)
    yield from _check_cores(config)
    plans = [plan_of(config, role, frozen=role in rsim.frozen) for role in policies(config)]
    yield from _check_fit(config, plans, console)


def _check_models(config: DictConfig, rsim: Any) -> Iterator[Finding]:
    from verl_rsim.config.dialogue import build_dialogue

    dialogue = build_dialogue(config, rsim)
    for role, codec in (("planner", dialogue.planner), ("reasoner", dialogue.reasoner)):
        size = model_size(_block(config, SHARED if rsim.shared_weights else role).model)
        seen = f"{size.parameters / 1e6:,.1f} M parameters, {size.vocabulary} words, ends with {sorted(codec.eos_ids)}"
        labels = f", labels 1 to {LABELS} are tokens {list(dialogue.label_ids)}"
        yield fine(role, seen + (labels if role == "planner" and dialogue.constrained else ""))


SUFFIXES = {"k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
"""With which vLLM takes a number of bytes as text."""
BUNDLE_CORES = 3
"""verl 0.9.1 reserves as many cores for each GPU of a pool (``max_colocate_count``)."""


def _check_cores(config: DictConfig) -> Iterator[Finding]:
    """What Ray must have of cores to place a job of one node; with fewer it waits, and does not say for what."""
    from ray._private.utils import get_num_cpus  # what Ray takes a container's share to be

    ray, pool, judge = config.ray_kwargs.ray_init, config.rsim.planner_pool, config.reward.reward_model
    given = os.environ.get("RAY_ADDRESS") or ray.get("address")
    if given or config.trainer.nnodes > 1 or (pool.enable and pool.nnodes > 1):
        return
    gpus = config.trainer.n_gpus_per_node + (gpus_of(config, "planner") if pool.enable else 0)
    if judge.enable and judge.enable_resource_pool:
        gpus += judge.n_gpus_per_node * judge.nnodes
    if not cpu.is_chosen() and 0 < len(_cards()) < gpus:
        return  # its pools lie on several nodes
    units, key = config.transfer_queue.backend.SimpleStorage.num_data_storage_units, "num_data_storage_units"
    storage = units + 1  # with its controller
    needed, found = storage + BUNDLE_CORES * gpus, int(ray.num_cpus or get_num_cpus())
    seen = f"{found}; {storage} for storage and {BUNDLE_CORES} for each of {gpus} GPUs: {needed}"
    if found >= needed:
        yield fine("cores", seen)
        return
    fix = f"transfer_queue.backend.SimpleStorage.{key}=1" if units > 1 else f"ray_kwargs.ray_init.num_cpus={needed}"
    yield broken("cores", f"{seen}; Ray would wait for more", fix)


def _cards() -> list[hardware.Gpu]:
    """This machine's GPUs; none where nvidia-smi fails, which the check of the hardware reports."""
    try:
        return hardware.gpus()
    except RuntimeError:
        return []


def policies(config: DictConfig) -> list[str]:
    """Whose models a job has: both roles', the one of ``rsim.shared_weights``, or a stock verl job's."""
    if "planner" not in config:
        return ["reasoner"]
    return [SHARED] if config.rsim.shared_weights else ["planner", "reasoner"]


def _block(config: DictConfig, role: str) -> DictConfig:
    return config.planner if role == "planner" else config.actor_rollout_ref


def model_size(model: DictConfig) -> ModelSize:
    """The numbers of a model block's architecture, counted on a model without storage."""
    built = empty_model(model)
    text = built.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return ModelSize(parameters, text.num_hidden_layers, text.hidden_size, text.vocab_size)


def plan_of(config: DictConfig, role: str, *, frozen: bool) -> RolePlan:
    """What the configuration does with the model of one of :func:`policies`, in the preflight's terms."""
    block = _block(config, role)
    actor, rollout = block.actor, block.rollout
    lengths = [rollout, config.planner.rollout] if role == SHARED else [rollout]
    ranks = gpus_of(config, role)
    size = model_size(block.model)
    server_bytes, on_cpu = BYTES.get(str(rollout.dtype), 2), cpu.is_chosen()
    cards = [] if on_cpu else _cards()
    bucket = int(rollout.checkpoint_engine.update_weights_bucket_megabytes) << 20
    return RolePlan(
        role=role,
        model=size,
        ranks=ranks,
        trained=not frozen,
        adapter=adapter_parameters(block.model),
        reference=bool(config.algorithm.use_kl_in_reward or actor.use_kl_loss),
        master_bytes=BYTES.get(str(actor.fsdp_config.model_dtype), 2),
        compute_bytes=_compute_bytes(actor.fsdp_config),
        server_bytes=server_bytes,
        micro_tokens=max(_micro_tokens(actor, rows, ranks) for rows in lengths),
        all_logits=role != "planner" or config.rsim.planner_decoding == "free",
        checkpointing=bool(block.model.enable_gradient_checkpointing),
        resharded=bool(actor.fsdp_config.reshard_after_forward),
        weights_offloaded=bool(actor.fsdp_config.param_offload) and not on_cpu,
        optimizer_offloaded=bool(actor.fsdp_config.optimizer_offload) and not on_cpu,
        server_bytes_allowed=round(rollout.gpu_memory_utilization * min((card.total for card in cards), default=0)),
        cache_bytes=_cache_bytes(rollout, size.parameters * server_bytes) if on_cpu else 0,
        sleeps=bool(rollout.free_cache_engine),
        servers=max(1, ranks // rollout.tensor_model_parallel_size),
        bucket_bytes=min(bucket, size.parameters * server_bytes),
    )


def _cache_bytes(rollout: DictConfig, weights: int) -> int:
    """A server's KV cache on a CPU, in the order in which vLLM 0.27 looks."""
    if gib := os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return round(float(gib) * GIB)
    given = OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes")
    if given is None:
        return max(0, round(rollout.gpu_memory_utilization * hardware.memory().total) - weights)
    return given if isinstance(given, int) else round(float(given[:-1]) * SUFFIXES[given[-1]])


def _compute_bytes(fsdp: DictConfig) -> int:
    mixed = fsdp.get("mixed_precision") or {}
    return BYTES.get(str(mixed.get("param_dtype", "bf16")), 2)


def _micro_tokens(actor: DictConfig, rollout: DictConfig, ranks: int) -> int:
    """Tokens of one pass on a rank: at most the limit, at most what a rank's share of a mini-batch can have."""
    row = rollout.prompt_length + rollout.response_length
    rows = max(1, actor.ppo_mini_batch_size * rollout.n // ranks)
    if actor.use_dynamic_bsz:
        return min(actor.ppo_max_token_len_per_gpu, rows * row)
    return min(actor.ppo_micro_batch_size_per_gpu or rows, rows) * row


def _check_fit(config: DictConfig, plans: list[RolePlan], console: Console) -> Iterator[Finding]:
    on_cpu = cpu.is_chosen()
    if on_cpu:
        yield _fit(config, plans, "of this machine", console)
    elif OmegaConf.select(config, "rsim.planner_pool.enable"):
        for plan in plans:
            yield _fit(config, [plan], f"of each of the {plan.role}'s GPUs", console)
    else:
        yield _fit(config, plans, "of each GPU", console)


def _fit(config: DictConfig, plans: list[RolePlan], where: str, console: Console) -> Finding:
    """Whether what these roles hold in one memory fits; prints the table."""
    on_cpu = cpu.is_chosen()
    agents = config.actor_rollout_ref.rollout.agent.num_workers
    lines = estimate(plans, cpu=on_cpu, reward_workers=config.reward.num_workers, agents=agents)
    found = peaks(lines)
    console.print(memory_table(lines, found, where))
    cards = [] if on_cpu else _cards()
    capacity = hardware.memory().available if on_cpu else min((card.total for card in cards), default=0)
    phase, peak = max(found.items(), key=lambda item: item[1])
    seen = f"peak about {peak / GIB:.1f} GiB ({phase}), {capacity / GIB:.1f} GiB to be had"
    largest = [line for line in lines if line.phase in (phase, "always")][:3]
    remedy = "; ".join(dict.fromkeys(line.remedy for line in largest))
    if not capacity:
        return warning(
            "memory of the job", f"peak about {peak / GIB:.1f} GiB, servers apart", "no GPU's memory to compare with"
        )
    if peak > capacity:
        return broken("memory of the job", seen, remedy)
    if peak > TIGHT * capacity:
        return warning("memory of the job", seen, f"tight: {remedy}")
    return fine("memory of the job", seen)


def memory_table(lines: Sequence[Line], found: dict[str, int], where: str) -> Table:
    """The estimate, term by term, and the peak of each phase."""
    table = Table("held", "what", "GiB", "formula", title=f"Memory {where}, estimated", title_justify="left", box=None)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].justify = "right"
    for line in (line for line in lines if line.size >= SMALLEST_SHOWN):
        table.add_row(line.phase, line.what, f"{line.size / GIB:.2f}", line.formula)
    table.add_section()
    for phase, size in found.items():
        table.add_row(phase, "peak", f"{size / GIB:.2f}", "all that is held always, and that")
    return table
