"""Everything verl-rsim registers with verl, in one place. verl loads this module in every process that imports verl.

Registration is lazy: each piece is registered right after the verl module it belongs to has been imported, so that
``import verl`` stays as fast as it was. verl hides the traceback of a plugin that raises; to see it, run
``python -c "import verl_rsim.plugin"``.
"""

from importlib import import_module

import wrapt

import verl_rsim.training.cpu
import verl_rsim.training.cpu.patches

if verl_rsim.training.cpu.is_chosen():
    verl_rsim.training.cpu.set_defaults()
    import_module("verl_rsim.training.cpu.platform")  # before anything asks verl for its platform
    verl_rsim.training.cpu.patches.name_vllm_distribution()
    verl_rsim.training.cpu.patches.join_gloo_process_group()
    verl_rsim.training.cpu.patches.sync_fsdp1_states()


def _register_agent_loop(module) -> None:
    module.agent_loop._agent_loop_registry["rsim"] = {"_target_": "verl_rsim.training.agent_loop.RsimAgentLoop"}


def _register_engines(_module) -> None:
    verl_rsim.training.cpu.patches.register_engines()
    verl_rsim.training.cpu.patches.keep_reference_in_place()
    import_module("verl_rsim.training.strategy_engine")


def _register_reward_managers(_module) -> None:
    import_module("verl_rsim.reward.manager")


def _load_tokenizers_as_asked(module) -> None:
    """In a job of two policies the reward worker runs a tokenizer's own code only where the configuration says so;
    verl 0.9.1 always does.
    """

    def as_asked(init, worker, args, kwargs):
        if "rsim" not in worker.config:
            return init(*args, **kwargs)
        trusted = bool(worker.config.actor_rollout_ref.model.get("trust_remote_code", False))
        load = module.hf_tokenizer
        module.hf_tokenizer = lambda path, **options: load(path, **{**options, "trust_remote_code": trusted})
        try:
            return init(*args, **kwargs)
        finally:
            module.hf_tokenizer = load

    wrapt.wrap_function_wrapper(module, "RewardLoopWorker._init_reward_fn", as_asked)


def _register_advantages(module) -> None:
    module.register_adv_est("turn_grpo")(import_module("verl_rsim.training.advantages").turn_grpo)


def _check_before_start(module) -> None:
    """Let verl's entry points refuse a job of two policies before they start anything, and one that a trainer of one
    policy would run; the driver of a job of two leaves Ray in time. verl 0.9.1; until it has a hook for plugins.
    """

    def checked(validate, _instance, args, kwargs):
        config = kwargs["config"] if "config" in kwargs else args[0]
        if import_module("verl_rsim.training.preflight.verl_option_rules").check_early(config):
            import_module("verl_rsim.monitoring.watchdog.ray_shutdown").leave_in_time(
                config.rsim.watchdog.stall_seconds
            )
        return validate(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "validate_config", checked)


def _register_trainer(module) -> None:
    module.trainer_base.TRAINER_REGISTRY["rsim"] = _make_trainer


def _make_trainer(config):
    if config.get("rsim", {}).get("shared_weights"):
        return import_module("verl_rsim.training.shared_weights_trainer").SharedTrainer(config)
    return import_module("verl_rsim.training.trainer").RsimTrainer(config)


for _name, _hook in {
    "verl.utils.config": _check_before_start,
    "verl.experimental.agent_loop": _register_agent_loop,
    "verl.workers.engine": _register_engines,
    "verl.experimental.reward_loop.reward_manager": _register_reward_managers,
    "verl.experimental.reward_loop.reward_loop": _load_tokenizers_as_asked,
    "verl.trainer.ppo.core_algos": _register_advantages,
    "verl.trainer.ppo.v1": _register_trainer,
}.items():
    wrapt.register_post_import_hook(_hook, _name)
