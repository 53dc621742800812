"""Implements ``verl-rsim doctor RECIPE``, which checks that a recipe with its overrides can start and fits into memory.

For a stock verl job only the memory is checked; verl checks its settings when it starts. The checks load tokenizers and
configurations, but no weights.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from verl_rsim.config.recipes import compose_recipe
from verl_rsim.config.schema import gpus_of
from verl_rsim.training import cpu
from verl_rsim.training.checkpoint.store import SHARED
from verl_rsim.training.preflight import hardware
from verl_rsim.training.preflight.doctor import GIB, Finding, broken, ok, warning
from verl_rsim.training.preflight.memory_estimate import ALWAYS, LABELS, ModelSize, RolePlan, Term, estimate, peaks
from verl_rsim.training.preflight.meta_model import adapter_parameters, empty_model
from verl_rsim.training.preflight.trained_rules_check import check_trained_rules
from verl_rsim.training.preflight.verl_option_rules import check_mode
from verl_rsim.utils.errors import JobWarning, RsimError

if TYPE_CHECKING:
    from verl_rsim.training.preflight.validate_job import ValidatedJob

TIGHT_SHARE = 0.9
"""Share of the memory above which a peak is a warning: the estimate has an error of about a fifth."""
SMALLEST_LISTED = GIB // 100
"""Bytes below which a term is left out of the table."""
BYTES = {"fp32": 4, "float32": 4}
"""Bytes of a weight by data type; all others have 2."""
SUFFIXES = {"k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
"""Factors of the suffixes that vLLM accepts in a number of bytes."""
BUNDLE_CORES = 3
"""Cores that verl 0.9.1 reserves for each GPU of a pool (``max_colocate_count``)."""


def check_job(recipe: str, overrides: Sequence[str], console: Console) -> Iterator[Finding]:
    """Checks a recipe's settings, models, cores and memory; prints the table of the memory.

    Args:
        recipe: a recipe's name, a .yaml file, or the name of the defaults.
        overrides: of the recipe, in hydra's grammar.
        console: receives the table.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            config = compose_recipe(recipe, overrides)
            check_mode(config)
            if config.trainer.v1.trainer_mode != "rsim":
                plans = [plan_of(config, "reasoner", frozen=False)]
                yield ok("recipe", f"{recipe} is a stock verl job; verl checks its settings when it starts")
                yield from _check_fit(config, plans, console)
                return
            from verl_rsim.training.preflight.validate_job import validate_job

            job = validate_job(config)
    except (HydraException, OmegaConfBaseException) as error:
        yield broken("recipe", f"{recipe}: {error}", "use keys that the configuration has")
        return
    except RsimError as error:
        yield broken("recipe", str(error), "change that setting")
        return
    except (OSError, ValueError) as error:  # transformers found no such model, or does not know its architecture
        yield broken("recipe", str(error).strip().splitlines()[0], "check the models' paths")
        return
    yield ok("recipe", f"{recipe} can start: settings, data, tokenizers and row budgets are consistent")
    yield from _job_warnings(told)
    yield from _check_data(job)
    yield from _check_models(config, job)
    yield from check_trained_rules(config, job.rsim)
    yield from _check_cores(config)
    plans = [plan_of(config, role, frozen=role in job.rsim.frozen) for role in policies(config)]
    yield from _check_fit(config, plans, console)


def _job_warnings(told: Sequence[warnings.WarningMessage]) -> Iterator[Finding]:
    """Yields what the checks of the job warned of; other packages' warnings, of engines not needed, are left out."""
    for message in dict.fromkeys(str(item.message) for item in told if issubclass(item.category, JobWarning)):
        yield warning("job", message, "the job can start; read docs/data.md if you did not expect this")


def _check_data(job: ValidatedJob) -> Iterator[Finding]:
    """Says how many rows of each dataset were read, and of which kinds they are."""
    for key, found in job.data.surveys.items():
        kinds = f"{found.coding_tasks} of them coding tasks" if found.coding_tasks else "no coding tasks"
        yield ok(key, f"{found.read} of {found.rows} rows read, {found.usable} can be played and scored, {kinds}")


def _check_models(config: DictConfig, job: ValidatedJob) -> Iterator[Finding]:
    dialogue, shared = job.dialogue, job.rsim.shared_weights
    for role, codec in (("planner", dialogue.planner), ("reasoner", dialogue.reasoner)):
        size = model_size(_block(config, SHARED if shared else role).model)
        details = f"{size.parameters / 1e6:,.1f} M parameters, vocabulary of {size.vocabulary} tokens"
        details += f", end-of-sequence tokens {sorted(codec.eos_ids)}"
        if role == "planner" and dialogue.constrained:
            details += f", labels 1 to {LABELS} are tokens {list(dialogue.label_ids)}"
        yield ok(role, details)


def _check_cores(config: DictConfig) -> Iterator[Finding]:
    """Checks that Ray has enough cores to place a job of one node; with fewer it waits without an error."""
    from ray._private.utils import get_num_cpus  # Ray's own count, which respects a container's limit

    ray, pool, judge = config.ray_kwargs.ray_init, config.rsim.planner_pool, config.reward.reward_model
    runs_on_cluster = os.environ.get("RAY_ADDRESS") or ray.get("address")
    if runs_on_cluster or config.trainer.nnodes > 1 or (pool.enable and pool.nnodes > 1):
        return
    gpus = config.trainer.n_gpus_per_node
    if pool.enable:
        gpus += gpus_of(config, "planner")
    if judge.enable and judge.enable_resource_pool:
        gpus += judge.n_gpus_per_node * judge.nnodes
    if not cpu.is_chosen() and 0 < len(_gpus()) < gpus:
        return  # the pools are on several nodes, whose cores cannot be counted here
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    storage = units + 1  # the storage units and their controller
    needed, available = storage + BUNDLE_CORES * gpus, int(ray.num_cpus or get_num_cpus())
    details = f"{available}; {storage} for storage and {BUNDLE_CORES} for each of {gpus} GPUs: {needed}"
    if available >= needed:
        yield ok("cores", details)
        return
    if units > 1:
        fix = "transfer_queue.backend.SimpleStorage.num_data_storage_units=1"
    else:
        fix = f"ray_kwargs.ray_init.num_cpus={needed}"
    yield broken("cores", f"{details}; Ray would wait for more", fix)


def _gpus() -> list[hardware.Gpu]:
    """Returns this machine's GPUs; none if nvidia-smi fails, which the check of the hardware reports."""
    try:
        return hardware.gpus()
    except RuntimeError:
        return []


def _smallest_gpu() -> int:
    """Returns the bytes of this machine's smallest GPU; 0 if there is none."""
    return min((gpu.total for gpu in _gpus()), default=0)


def policies(config: DictConfig) -> list[str]:
    """Returns the names of a job's policies.

    They are both roles, :data:`SHARED` with ``rsim.shared_weights``, and the reasoner for a stock verl job.
    """
    if "planner" not in config:
        return ["reasoner"]
    return [SHARED] if config.rsim.shared_weights else ["planner", "reasoner"]


def _block(config: DictConfig, role: str) -> DictConfig:
    return config.planner if role == "planner" else config.actor_rollout_ref


def model_size(model: DictConfig) -> ModelSize:
    """Returns the size of a model block's model, counted on a copy whose tensors have no storage."""
    built = empty_model(model)
    text = built.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return ModelSize(parameters, text.num_hidden_layers, text.hidden_size, text.vocab_size)


def plan_of(config: DictConfig, role: str, *, frozen: bool) -> RolePlan:
    """Returns the plan of a role for the estimate of the memory.

    Args:
        config: the whole configuration.
        role: one of :func:`policies`.
        frozen: True if the role is not trained.
    """
    block = _block(config, role)
    actor, rollout = block.actor, block.rollout
    row_lengths = [rollout, config.planner.rollout] if role == SHARED else [rollout]
    ranks = gpus_of(config, role)
    size = model_size(block.model)
    server_bytes, on_cpu = BYTES.get(str(rollout.dtype), 2), cpu.is_chosen()
    smallest_gpu = 0 if on_cpu else _smallest_gpu()
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
        micro_tokens=max(_micro_tokens(actor, rows, ranks) for rows in row_lengths),
        all_logits=role != "planner" or config.rsim.planner_decoding == "free",
        checkpointing=bool(block.model.enable_gradient_checkpointing),
        resharded=bool(actor.fsdp_config.reshard_after_forward),
        weights_offloaded=bool(actor.fsdp_config.param_offload) and not on_cpu,
        optimizer_offloaded=bool(actor.fsdp_config.optimizer_offload) and not on_cpu,
        server_bytes_allowed=round(rollout.gpu_memory_utilization * smallest_gpu),
        cache_bytes=_cache_bytes(rollout, size.parameters * server_bytes) if on_cpu else 0,
        sleeps=bool(rollout.free_cache_engine),
        servers=max(1, ranks // rollout.tensor_model_parallel_size),
        bucket_bytes=min(bucket, size.parameters * server_bytes),
    )


def _cache_bytes(rollout: DictConfig, weights: int) -> int:
    """Returns the bytes of a server's KV cache on a CPU; the sources have the precedence that vLLM 0.27 gives them."""
    gib = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    if gib:
        return round(float(gib) * GIB)
    size = OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes")
    if size is None:
        return max(0, round(rollout.gpu_memory_utilization * hardware.memory().total) - weights)
    return size if isinstance(size, int) else round(float(size[:-1]) * SUFFIXES[size[-1]])


def _compute_bytes(fsdp: DictConfig) -> int:
    mixed = fsdp.get("mixed_precision") or {}
    return BYTES.get(str(mixed.get("param_dtype", "bf16")), 2)


def _micro_tokens(actor: DictConfig, rollout: DictConfig, ranks: int) -> int:
    """Returns the tokens of one pass on a rank: the limit, or a rank's share of a mini-batch if that is smaller."""
    row = rollout.prompt_length + rollout.response_length
    rows = max(1, actor.ppo_mini_batch_size * rollout.n // ranks)
    if actor.use_dynamic_bsz:
        return min(actor.ppo_max_token_len_per_gpu, rows * row)
    return min(actor.ppo_micro_batch_size_per_gpu or rows, rows) * row


def _check_fit(config: DictConfig, plans: list[RolePlan], console: Console) -> Iterator[Finding]:
    """Compares the estimated memory with that of the machine, of each GPU, or of each pool's GPUs."""
    if cpu.is_chosen():
        yield _compare(config, plans, "of this machine", console)
    elif OmegaConf.select(config, "rsim.planner_pool.enable"):
        for plan in plans:
            yield _compare(config, [plan], f"of each of the {plan.role}'s GPUs", console)
    else:
        yield _compare(config, plans, "of each GPU", console)


def _compare(config: DictConfig, plans: list[RolePlan], owner: str, console: Console) -> Finding:
    """Compares the memory of roles that share one GPU, or the machine, with its capacity; prints the table."""
    on_cpu = cpu.is_chosen()
    agents = config.actor_rollout_ref.rollout.agent.num_workers
    terms = estimate(plans, cpu=on_cpu, reward_workers=config.reward.num_workers, agents=agents)
    phase_peaks = peaks(terms)
    console.print(memory_table(terms, phase_peaks, owner))
    capacity = hardware.memory().available if on_cpu else _smallest_gpu()
    phase = max(phase_peaks, key=lambda name: phase_peaks[name])
    peak = phase_peaks[phase]
    subject = "memory of the job"
    if not capacity:
        details = f"peak about {peak / GIB:.1f} GiB, without the servers"
        return warning(subject, details, "no GPU's memory to compare with")
    details = f"peak about {peak / GIB:.1f} GiB ({phase}), {capacity / GIB:.1f} GiB available"
    largest = [term for term in terms if term.phase in (phase, ALWAYS)][:3]
    fix = "; ".join(dict.fromkeys(term.fix for term in largest))
    if peak > capacity:
        return broken(subject, details, fix)
    if peak > TIGHT_SHARE * capacity:
        return warning(subject, details, f"tight: {fix}")
    return ok(subject, details)


def memory_table(terms: Sequence[Term], phase_peaks: dict[str, int], owner: str) -> Table:
    """Returns the table of the estimate: each term, then the peak of each phase, in GiB."""
    table = Table("held", "term", "GiB", "formula", title=f"Memory {owner}, estimated", title_justify="left", box=None)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].justify = "right"
    for term in terms:
        if term.size >= SMALLEST_LISTED:
            table.add_row(term.phase, term.name, f"{term.size / GIB:.2f}", term.formula)
    table.add_section()
    for phase, size in phase_peaks.items():
        table.add_row(phase, "peak", f"{size / GIB:.2f}", "terms that are always held, plus this phase's")
    return table
