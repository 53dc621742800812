"""Estimates the memory of a job, in bytes and term by term, from the sizes of its models and its settings. Pure Python.

On a GPU the terms are those of one GPU: training state is sharded over the ranks, servers take the share that they are
given, and servers that sleep during the update do not count in that phase. On a CPU the terms are those of the whole
machine and include the processes themselves, which dwarf a small model. The estimate leaves out the host memory of a
GPU job, and expert parallelism. docs/preflight.md compares it with measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2**30
LABELS = 9
ALWAYS, ROLLOUT = "always", "rollout"
MOMENT_BYTES = 8
"""Bytes of the optimizer's state per trained parameter: Adam's two moments, in float32."""
ACTIVATIONS_PER_LAYER = 17
"""Values that a layer keeps for its backward pass, per token and per unit of the hidden size, with fused attention
(Korthikanti et al., arXiv 2205.05198: 34 bytes in 16-bit)."""
LOGIT_BYTES = 12
"""Bytes per logit: the logit, its log-softmax and its gradient, in float32."""

JOB_GIB, REWARD_WORKER_GIB, IMPORTED_GIB = 2.1, 0.3, 0.5
"""GiB of the processes that every job has (driver, Ray, task runner, TransferQueue), of a reward worker, and of any
process that has imported torch and verl or vLLM. Measured on a CPU: proportional set size, verl 0.9.1, vLLM 0.27.1."""
SERVER_PROCESSES = 3
"""Processes of a server: HTTP server, engine, worker. Each role has a load balancer besides."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Holds the numbers of a model's architecture that its memory depends on."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class RolePlan:
    """Describes how a configuration trains and serves one role's model. Sizes are in bytes.

    Attributes:
        role: "planner", "reasoner" or "shared".
        model: size of the model.
        ranks: training processes over which the training state is sharded.
        trained: False for a frozen role, which has servers but no training worker.
        reference: True if the KL term needs a frozen copy. verl keeps it in host memory beside a GPU; a policy with an
            adapter needs no copy.
        adapter: parameters of the LoRA adapter; 0 if all parameters of the model are trained.
        master_bytes: bytes per weight in the optimizer.
        compute_bytes: bytes per weight in the forward pass.
        server_bytes: bytes per weight in the server.
        micro_tokens: tokens of one forward and backward pass on a rank.
        all_logits: True if the loss needs the logits of all tokens over the whole vocabulary; False for the planner's
            nine labels.
        checkpointing: True if activations are computed again in the backward pass.
        resharded: True if gathered weights are freed after each layer (``fsdp_config.reshard_after_forward``).
        weights_offloaded: True if the weights are in host memory outside the update.
        optimizer_offloaded: True if the optimizer's state is in host memory outside the update.
        server_bytes_allowed: bytes for the server's weights and cache on a GPU; 0 on a CPU, where they are two terms.
        cache_bytes: bytes of a server's KV cache on a CPU.
        sleeps: True if the servers free their memory during the update.
        servers: number of replicas.
        bucket_bytes: bytes of the buffer of a weight transfer.
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
class Term:
    """Holds one term of the estimate.

    Attributes:
        phase: when the memory is held: "always", "rollout", or a role's update.
        name: what the memory holds.
        size: bytes.
        formula: the computation, as a text for the user.
        fix: the setting that makes the term smaller.
    """

    phase: str
    name: str
    size: int
    formula: str
    fix: str


def estimate(plans: Sequence[RolePlan], *, cpu: bool, reward_workers: int = 0, agents: int = 0) -> list[Term]:
    """Returns the terms of a job's memory, largest first: of one GPU, or of the whole machine if ``cpu`` is set.

    Args:
        plans: plan of each role whose model uses this memory.
        cpu: True for a machine without GPUs.
        reward_workers: ``reward.num_workers``; counts only on a CPU.
        agents: ``rollout.agent.num_workers``; counts only on a CPU.
    """
    terms: list[Term] = []
    for plan in plans:
        if plan.trained:
            terms += _training_terms(_Training(plan, cpu))
        if cpu:
            terms += [_server_weights(plan), _server_cache(plan), _weight_transfer(plan)]
        else:
            terms.append(_server_share(plan))
    if cpu:
        terms.append(_processes(plans, reward_workers, agents))
    return sorted((term for term in terms if term.size), key=lambda term: -term.size)


def peaks(terms: Sequence[Term]) -> dict[str, int]:
    """Returns the memory of each phase in bytes: the terms that are always held plus the phase's own."""
    always = sum(term.size for term in terms if term.phase == ALWAYS)
    totals: dict[str, int] = {}
    for term in terms:
        if term.phase != ALWAYS:
            totals[term.phase] = totals.get(term.phase, always) + term.size
    return totals or {ALWAYS: always}


@dataclass(frozen=True, slots=True)
class _Training:
    """Derives the counts and texts that several terms of a role's training share."""

    plan: RolePlan
    cpu: bool

    @property
    def shards(self) -> int:
        """Number of ranks that split the training state; 1 on a CPU, where one machine holds all shards."""
        return 1 if self.cpu else self.plan.ranks

    @property
    def passes(self) -> int:
        """Number of ranks whose passes use this memory at the same time."""
        return self.plan.ranks if self.cpu else 1

    @property
    def update(self) -> str:
        """Phase in which the memory of an update is held."""
        # On a CPU a process does not return freed memory: the planner's worker was seen to stay at its peak while the
        # reasoner learned. Both roles' updates therefore add up there.
        return ALWAYS if self.cpu else f"{self.plan.role} update"

    @property
    def trained_parameters(self) -> int:
        return self.plan.adapter or self.plan.model.parameters

    @property
    def tokens(self) -> int:
        """Tokens of all passes at the same time."""
        return self.plan.micro_tokens * self.passes

    @property
    def count(self) -> str:
        """Number of the model's parameters, as a text."""
        return f"{self.plan.model.parameters / 1e6:,.1f} M parameters"

    @property
    def trained_count(self) -> str:
        """Number of the trained parameters, as a text."""
        return f"{self.plan.adapter / 1e6:,.1f} M of LoRA" if self.plan.adapter else self.count

    @property
    def divisor(self) -> str:
        """Division by the ranks, as a text."""
        return f" / {self.shards} ranks" if self.shards > 1 else ""

    @property
    def fsdp_key(self) -> str:
        return f"{_block(self.plan)}.actor.fsdp_config"

    @property
    def smaller_passes(self) -> str:
        return f"lower {_block(self.plan)}.actor.ppo_micro_batch_size_per_gpu or ppo_max_token_len_per_gpu"


def _block(plan: RolePlan) -> str:
    return "planner" if plan.role == "planner" else "actor_rollout_ref"


def _training_terms(training: _Training) -> list[Term]:
    return [
        _weights(training),
        _optimizer(training),
        _reference(training),
        _gradients(training),
        _gathered_weights(training),
        _activations(training),
        _logits(training),
    ]


def _weights(training: _Training) -> Term:
    plan = training.plan
    size = (plan.model.parameters + plan.adapter) * plan.master_bytes // training.shards
    count = f"({training.count} + {training.trained_count})" if plan.adapter else training.count
    formula = f"{count} * {plan.master_bytes} bytes{training.divisor}"
    phase = training.update if plan.weights_offloaded else ALWAYS
    fix = f"{training.fsdp_key}.param_offload=true, or more GPUs"
    return Term(phase, f"{plan.role}'s weights", size, formula, fix)


def _optimizer(training: _Training) -> Term:
    plan = training.plan
    size = training.trained_parameters * MOMENT_BYTES // training.shards
    formula = f"{training.trained_count} * {MOMENT_BYTES} bytes (two moments){training.divisor}"
    phase = training.update if plan.optimizer_offloaded else ALWAYS
    fix = f"{training.fsdp_key}.optimizer_offload=true, or more GPUs"
    return Term(phase, f"{plan.role}'s optimizer", size, formula, fix)


def _reference(training: _Training) -> Term:
    plan = training.plan
    counts = plan.reference and training.cpu and not plan.adapter
    size = plan.model.parameters * plan.master_bytes // training.shards if counts else 0
    formula = f"{training.count} * {plan.master_bytes} bytes{training.divisor}"
    return Term(ALWAYS, f"{plan.role}'s reference", size, formula, f"{_block(plan)}.actor.use_kl_loss=false")


def _gradients(training: _Training) -> Term:
    plan = training.plan
    size = training.trained_parameters * plan.master_bytes // training.shards
    formula = f"{training.trained_count} * {plan.master_bytes} bytes{training.divisor}"
    fix = f"LoRA ({_block(plan)}.model.lora_rank), or more GPUs"
    return Term(training.update, f"{plan.role}'s gradients", size, formula, fix)


def _gathered_weights(training: _Training) -> Term:
    plan, model = training.plan, training.plan.model
    # FSDP gathers the next layer while the current one computes, so two layers are in memory at the same time.
    layers = min(2, model.layers) if plan.resharded else model.layers
    size = training.passes * model.parameters * layers // model.layers * plan.compute_bytes
    layer_count = f"{training.passes} * {training.count} * {layers} of {model.layers} layers"
    formula = f"{layer_count} * {plan.compute_bytes} bytes"
    fix = f"{training.fsdp_key}.reshard_after_forward=true"
    return Term(training.update, f"{plan.role}'s gathered weights", size, formula, fix)


def _activations(training: _Training) -> Term:
    plan, model = training.plan, training.plan.model
    if plan.checkpointing:
        # Each layer keeps its input alone; one layer at a time is computed again with all its activations.
        values, text = model.layers + ACTIVATIONS_PER_LAYER, f"({model.layers} + {ACTIVATIONS_PER_LAYER})"
    else:
        values = model.layers * ACTIVATIONS_PER_LAYER
        text = f"{values}"
    size = training.tokens * model.hidden * plan.compute_bytes * values
    formula = f"{text} * {training.tokens} tokens * {model.hidden} * {plan.compute_bytes} bytes"
    return Term(training.update, f"{plan.role}'s activations", size, formula, training.smaller_passes)


def _logits(training: _Training) -> Term:
    plan = training.plan
    width = plan.model.vocabulary if plan.all_logits else 0
    size = training.tokens * width * LOGIT_BYTES
    formula = f"{training.tokens} tokens * {width} logits * {LOGIT_BYTES} bytes"
    return Term(training.update, f"{plan.role}'s logits", size, formula, training.smaller_passes)


def _server_share(plan: RolePlan) -> Term:
    key = f"{_block(plan)}.rollout.gpu_memory_utilization"
    phase = ROLLOUT if plan.sleeps else ALWAYS
    return Term(phase, f"{plan.role}'s server", plan.server_bytes_allowed, f"{key} * the GPU's memory", f"lower {key}")


def _server_weights(plan: RolePlan) -> Term:
    size = plan.model.parameters * plan.server_bytes * plan.servers
    formula = f"{plan.servers} * {plan.model.parameters / 1e6:,.1f} M parameters * {plan.server_bytes} bytes"
    return Term(ALWAYS, f"{plan.role}'s server weights", size, formula, "a smaller model")


def _server_cache(plan: RolePlan) -> Term:
    key = "rollout.engine_kwargs.vllm.kv_cache_memory_bytes"
    fix = f"lower {key}, or VLLM_CPU_KVCACHE_SPACE, if it is set"
    return Term(ALWAYS, f"{plan.role}'s KV cache", plan.cache_bytes * plan.servers, f"{plan.servers} * {key}", fix)


def _weight_transfer(plan: RolePlan) -> Term:
    # Sender and receiver each have a buffer. A frozen role's weights are never sent.
    size = 2 * plan.bucket_bytes if plan.trained else 0
    key = "rollout.checkpoint_engine.update_weights_bucket_megabytes"
    return Term(ALWAYS, f"{plan.role}'s weight transfer", size, f"2 * {key}", f"lower {key}")


def _processes(plans: Sequence[RolePlan], reward_workers: int, agents: int) -> Term:
    trainers = sum(plan.ranks for plan in plans if plan.trained)
    servers = SERVER_PROCESSES * sum(plan.servers for plan in plans)
    balancers = len(plans)
    imported = agents + trainers + servers + balancers
    size = JOB_GIB + REWARD_WORKER_GIB * reward_workers + IMPORTED_GIB * imported
    formula = (
        f"{JOB_GIB} GiB + {REWARD_WORKER_GIB} GiB * {reward_workers} reward workers + {IMPORTED_GIB} GiB * "
        f"({agents} agent loops + {trainers} trainers + {servers} of servers + {balancers} load balancers)"
    )
    fix = "keep reward.num_workers and rollout.agent.num_workers at 1, or freeze a role (rsim.train)"
    return Term(ALWAYS, "processes", round(size * GIB), formula, fix)
