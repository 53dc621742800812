"""Whether two models and a configuration fit: an estimate of memory, term by term. Pure Python.

On a GPU the terms are one GPU's: training state is sharded over the ranks, servers take what they are allowed, and what
sleeps during the update is not counted there. On a CPU they are the machine's, with the processes themselves,
which dwarf a small model. Not counted: the host memory of a GPU job, and expert parallelism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2**30
LABELS = 9
ALWAYS, ROLLOUT = "always", "rollout"
ACTIVATIONS_PER_LAYER = 17
"""Values a layer keeps for its backward pass, in units of tokens * hidden size, with fused attention (Korthikanti et
al., arXiv 2205.05198: 34 bytes in 16-bit)."""
LOGIT_BYTES = 12
"""Of each logit: itself, its log-softmax and its gradient, in float32."""

JOB_GIB, REWARD_WORKER_GIB, IMPORTED_GIB = 2.1, 0.3, 0.5
"""Measured on a CPU (proportional set size, verl 0.9.1, vLLM 0.27.1): the processes every job has (driver, Ray, task
runner, TransferQueue), a reward worker, and any process that has imported torch and verl or vLLM."""
SERVER_PROCESSES = 3
"""HTTP server, engine, worker; each role has a load balancer besides."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The numbers of an architecture that memory depends on."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class RolePlan:
    """What a configuration does with one role's model.

    Attributes:
        ranks: training processes, over which its state is sharded.
        trained: it has a worker; otherwise servers only.
        reference: a frozen copy for the KL term. verl keeps it in host memory; with an adapter there is none.
        adapter: parameters of its LoRA adapter; 0: all of the model's are trained.
        master_bytes, compute_bytes, server_bytes: of a weight in the optimizer, in the forward pass, in the server.
        micro_tokens: tokens of one forward and backward pass on a rank.
        all_logits: the loss needs the logits of all tokens over the vocabulary; False for the planner's nine labels.
        checkpointing: activations are computed again in the backward pass.
        resharded: gathered weights are given up after each layer (``fsdp_config.reshard_after_forward``).
        weights_offloaded, optimizer_offloaded: to host memory while they are not used.
        server_bytes_allowed: the server's weights and cache on a GPU (0 on a CPU, where weights and cache add up).
        cache_bytes: a server's KV cache on a CPU.
        sleeps: the servers free their memory during the update.
        servers: replicas.
        bucket_bytes: a weight transfer's buffer.
    """

    role: str
    model: ModelSize
    ranks: int = 1
    trained: bool = True
    reference: bool = False
    adapter: int = 0
    master_bytes: int = 4
    compute_bytes: int = 4
    server_bytes: int = 4
    micro_tokens: int = 0
    all_logits: bool = True
    checkpointing: bool = True
    resharded: bool = True
    weights_offloaded: bool = False
    optimizer_offloaded: bool = False
    server_bytes_allowed: int = 0
    cache_bytes: int = 0
    sleeps: bool = False
    servers: int = 1
    bucket_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One term.

    Attributes:
        phase: when it is held: always, rollout, or a role's update.
        size: bytes.
        formula: how it was computed, for the reader.
        remedy: the setting that makes it smaller.
    """

    phase: str
    what: str
    size: int
    formula: str
    remedy: str


def estimate(plans: Sequence[RolePlan], *, cpu: bool, reward_workers: int = 0, agents: int = 0) -> list[Line]:
    """The terms of a job, largest first: of one GPU, or of the machine if ``cpu``.

    Args:
        plans: of both roles.
        reward_workers, agents: ``reward.num_workers`` and ``rollout.agent.num_workers``, which count on a CPU.
    """
    lines: list[Line] = []
    for plan in plans:
        if plan.trained:
            lines += _training(plan, cpu)
        lines += _servers_on_cpu(plan) if cpu else _servers_on_gpu(plan)
    if cpu:
        trainers = sum(plan.ranks for plan in plans if plan.trained)
        servers = SERVER_PROCESSES * sum(plan.servers for plan in plans)
        imported = agents + trainers + servers + len(plans)
        size = JOB_GIB + REWARD_WORKER_GIB * reward_workers + IMPORTED_GIB * imported
        formula = (
            f"{JOB_GIB} GiB + {REWARD_WORKER_GIB} GiB * {reward_workers} reward workers + {IMPORTED_GIB} GiB * "
            f"({agents} agent loops + {trainers} trainers + {servers} of servers + {len(plans)} load balancers)"
        )
        fix = "keep reward.num_workers and rollout.agent.num_workers at 1, or freeze a role (rsim.train)"
        lines.append(Line(ALWAYS, "processes", round(size * GIB), formula, fix))
    return sorted((line for line in lines if line.size), key=lambda line: -line.size)


def peaks(lines: Sequence[Line]) -> dict[str, int]:
    """The memory of each phase, in bytes: what is always held plus its own."""
    held = sum(line.size for line in lines if line.phase == ALWAYS)
    phases = dict.fromkeys(line.phase for line in lines if line.phase != ALWAYS)
    return {phase: held + sum(line.size for line in lines if line.phase == phase) for phase in phases} or {ALWAYS: held}


def _training(plan: RolePlan, cpu: bool) -> list[Line]:
    """A role's training state and its update.

    A machine without GPUs holds all shards, all ranks' passes, and both roles' updates at once: there a process keeps
    what it has freed (seen: the planner's worker stays at its peak while the reasoner learns).
    """
    shards, passes = (1, plan.ranks) if cpu else (plan.ranks, 1)
    model, update, name = plan.model, ALWAYS if cpu else f"{plan.role} update", f"{plan.role}'s "
    count = f"{model.parameters / 1e6:,.1f} M parameters"
    share = f" / {shards} ranks" if shards > 1 else ""
    block = "planner" if plan.role == "planner" else "actor_rollout_ref"
    trained, learned = (
        plan.adapter or model.parameters,
        f"{plan.adapter / 1e6:,.1f} M of LoRA" if plan.adapter else count,
    )
    held = f"({count} + {learned})" if plan.adapter else count
    weights, moments = (model.parameters + plan.adapter) * plan.master_bytes // shards, trained * 8 // shards
    tokens, width = plan.micro_tokens * passes, model.vocabulary if plan.all_logits else 0
    unit = tokens * model.hidden * plan.compute_bytes
    kept = model.layers + ACTIVATIONS_PER_LAYER if plan.checkpointing else model.layers * ACTIVATIONS_PER_LAYER
    layers = f"({model.layers} + {ACTIVATIONS_PER_LAYER})" if plan.checkpointing else f"{kept}"
    offload = f"{block}.actor.fsdp_config"
    smaller = f"{block}.actor.ppo_micro_batch_size_per_gpu or ppo_max_token_len_per_gpu"
    layers_at_once = min(2, model.layers) if plan.resharded else model.layers
    gathered_count = f"{passes} * {count} * {layers_at_once} of {model.layers} layers"
    gathered = passes * model.parameters * layers_at_once // model.layers * plan.compute_bytes
    reference = model.parameters * plan.master_bytes // shards if plan.reference and cpu and not plan.adapter else 0
    return [
        Line(update if plan.weights_offloaded else ALWAYS, name + "weights", weights,
             f"{held} * {plan.master_bytes} bytes{share}", f"{offload}.param_offload=true, or more GPUs"),
        Line(update if plan.optimizer_offloaded else ALWAYS, name + "optimizer", moments,
             f"{learned} * 8 bytes (two moments){share}", f"{offload}.optimizer_offload=true, or more GPUs"),
        Line(ALWAYS, name + "reference", reference,
             f"{count} * {plan.master_bytes} bytes{share}", f"{block}.actor.use_kl_loss=false"),
        Line(update, name + "gradients", trained * plan.master_bytes // shards,
             f"{learned} * {plan.master_bytes} bytes{share}", f"LoRA ({block}.model.lora_rank), or more GPUs"),
        Line(update, name + "gathered weights", gathered,
             f"{gathered_count} * {plan.compute_bytes} bytes", f"{offload}.reshard_after_forward=true"),
        Line(update, name + "activations", unit * kept,
             f"{layers} * {tokens} tokens * {model.hidden} * {plan.compute_bytes} bytes", f"lower {smaller}"),
        Line(update, name + "logits", tokens * width * LOGIT_BYTES,
             f"{tokens} tokens * {width} words * {LOGIT_BYTES} bytes", f"lower {smaller}"),
    ]  # fmt: skip


def _servers_on_gpu(plan: RolePlan) -> list[Line]:
    block = "planner" if plan.role == "planner" else "actor_rollout_ref"
    key = f"{block}.rollout.gpu_memory_utilization"
    phase = ROLLOUT if plan.sleeps else ALWAYS
    return [
        Line(phase, f"{plan.role}'s server", plan.server_bytes_allowed, f"{key} * the GPU's memory", f"lower {key}")
    ]


def _servers_on_cpu(plan: RolePlan) -> list[Line]:
    weights = plan.model.parameters * plan.server_bytes * plan.servers
    count = f"{plan.servers} * {plan.model.parameters / 1e6:,.1f} M parameters"
    cache = "rollout.engine_kwargs.vllm.kv_cache_memory_bytes"
    return [
        Line(ALWAYS, f"{plan.role}'s server weights", weights,
             f"{count} * {plan.server_bytes} bytes", "a smaller model"),
        Line(ALWAYS, f"{plan.role}'s KV cache", plan.cache_bytes * plan.servers,
             f"{plan.servers} * {cache}", f"lower {cache}, or VLLM_CPU_KVCACHE_SPACE, if it is set"),
        Line(ALWAYS, f"{plan.role}'s weight transfer", 2 * plan.bucket_bytes if plan.trained else 0,
             "2 * rollout.checkpoint_engine.update_weights_bucket_megabytes", "lower it"),
    ]  # fmt: skip
