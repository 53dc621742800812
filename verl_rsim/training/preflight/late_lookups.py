"""Looks up what verl looks up by name only after models and servers are up: loggers, losses, files, functions, classes.

docs/verl_options.md lists these options; a test compares the page with the tables here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_rsim.training.preflight.verl_option_rules import POLICIES
from verl_rsim.utils.errors import ConfigError

_TYPES = ("fp16", "float16", "bf16", "bfloat16", "fp32", "float32")
_KL = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
_KL_TYPES = (*_KL, *(f"{name}+" for name in _KL))
_LOAD_FORMATS = (
    *("auto", "bitsandbytes", "dummy", "fastsafetensors", "gguf", "hf", "mistral", "npcache", "pt"),
    *("runai_streamer", "runai_streamer_sharded", "safetensors", "sharded_state", "tensorizer"),
)

JOB_CHOICES: dict[str, tuple[object, ...]] = {
    "model_engine": ("dp", "megatron", "veomni", "torchtitan"),
    "algorithm.kl_penalty": _KL_TYPES,
    "algorithm.kl_ctrl.type": ("fixed", "adaptive"),
    "algorithm.rollout_correction.rollout_is": (None, "token", "sequence"),
    "algorithm.rollout_correction.loss_type": ("ppo_clip", "reinforce"),
    "reward.reward_manager.source": ("register", "importlib"),
    "trainer.device": ("cuda", "cpu", "npu"),
    "trainer.v1.sampler.max_off_policy_strategy": ("drop", "wait"),
    "transfer_queue.backend.storage_backend": ("SimpleStorage", "MooncakeStore", "RayStore", "Yuanrong"),
    "global_profiler.tool": (None, "nsys", "npu", "torch", "torch_memory", "precision_debugger"),
}
POLICY_CHOICES: dict[str, tuple[object, ...]] = {
    "actor.strategy": ("fsdp", "fsdp2", "megatron", "veomni", "torchtitan"),
    "actor.kl_loss_type": _KL_TYPES,
    "actor.fsdp_config.model_dtype": _TYPES,
    "actor.fsdp_config.dtype": _TYPES,
    "actor.fsdp_config.mixed_precision.param_dtype": _TYPES,
    "actor.fsdp_config.mixed_precision.reduce_dtype": _TYPES,
    "actor.fsdp_config.mixed_precision.buffer_dtype": _TYPES,
    "rollout.dtype": (*_TYPES, "auto", "half", "float"),
    "rollout.load_format": _LOAD_FORMATS,
    "rollout.scheduling_policy": ("fcfs", "priority"),
    "rollout.logprobs_mode": ("processed_logprobs", "raw_logprobs"),
    "rollout.trace.backend": (None, "mlflow", "weave"),
    "model.fused_kernel_options.impl_backend": ("torch", "triton", "liger"),
}
"""Values that verl and vLLM know, for options that they check late or never."""

POLICY_FILES = (
    "rollout.router_config_path",
    "rollout.agent.agent_loop_config_path",
    "rollout.quantization_config_file",
    "model.hf_config_path",
    "model.tokenizer_path",
)
"""Options of each policy that name a file or folder of this machine; a Hugging Face id passes for the model's."""

JOB_OBJECTS = {
    "reward.custom_reward_function": "",
    "data.custom_cls": "torch.utils.data.Dataset",
    "trainer.v1.sampler.custom_sampler": "",
}
"""Blocks with ``path`` and ``name`` of an object of the user, with the class that it must extend."""
JOB_CLASSES = ("trainer.checkpoint_callback_class",)
"""Options that name a class by its full name."""
LOGGER_MODULES = {
    "wandb": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "vemlp_wandb": "volcengine_ml_platform",
    "tensorboard": "tensorboard",
    "clearml": "clearml",
    "trackio": "trackio",
    "rl_insight": "rl_insight",
}
"""Modules that verl imports for a logger, when the first metrics are written."""
REWARD_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")
"""Names under which verl's reward managers pass an answer to a reward function."""


def check_lookups(config: DictConfig) -> None:
    """Looks up every name and path of the configuration that verl would look up late.

    Raises:
        ConfigError: one of them is unknown, absent or of the wrong kind.
    """
    for key, known in _by_policy(JOB_CHOICES, POLICY_CHOICES):
        _check_choice(config, key, known)
    _check_losses(config)
    _check_loggers(config)
    for policy in POLICIES:
        for name in POLICY_FILES:
            _check_file(config, f"{policy}.{name}")
        _check_optimizer(config, policy)
        _check_module(f"{policy}.model.external_lib", OmegaConf.select(config, f"{policy}.model.external_lib"))
    for key, base in JOB_OBJECTS.items():
        _check_object(config, key, base)
    if OmegaConf.select(config, "reward.reward_manager.source") == "importlib":
        name = config.reward.reward_manager.name
        _load_object("reward.reward_manager.module.path", config.reward.reward_manager.module.path, name)
    for key in JOB_CLASSES:
        value = OmegaConf.select(config, key)
        if value is not None:
            _load_class(key, value)


def _by_policy(
    job: Mapping[str, tuple[object, ...]], policy: Mapping[str, tuple[object, ...]]
) -> Iterable[tuple[str, tuple[object, ...]]]:
    yield from job.items()
    for block in POLICIES:
        for key, known in policy.items():
            yield f"{block}.{key}", known


def _check_choice(config: DictConfig, key: str, known: tuple[object, ...]) -> None:
    value = OmegaConf.select(config, key, default=known[0])
    if value not in known:
        names = ", ".join("null" if name is None else str(name) for name in known)
        raise ConfigError(key, value, f"choose one of {names}")


def _check_losses(config: DictConfig) -> None:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    for policy in POLICIES:
        key = f"{policy}.actor.policy_loss.loss_mode"
        _check_choice(config, key, tuple(sorted(POLICY_LOSS_REGISTRY)))


def _check_loggers(config: DictConfig) -> None:
    """Checks that verl knows each logger, that its package is installed, and that W&B would not ask for a key."""
    from verl.utils.tracking import Tracking

    value = config.trainer.logger
    names = [value] if isinstance(value, str) else list(value)
    for name in names:
        known = sorted(Tracking.supported_backend)
        if name not in known:
            raise ConfigError("trainer.logger", name, f"verl knows no such logger; choose of {', '.join(known)}")
        module = LOGGER_MODULES.get(name)
        if module and not _is_installed(module):
            fix = f"its package is not installed: pip install {module}; or remove it from the list"
            raise ConfigError("trainer.logger", name, fix)
        if name == "wandb" and not _wandb_can_start():
            fix = "W&B has no key and would ask for one; set WANDB_API_KEY, or WANDB_MODE=offline, or run: wandb login"
            raise ConfigError("trainer.logger", name, fix)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a broken package
        return False


def _wandb_can_start() -> bool:
    """Returns True if W&B has a key, in the environment or from ``wandb login``, or needs none."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="replace")


def _check_file(config: DictConfig, key: str) -> None:
    value = OmegaConf.select(config, key)
    if value is None or Path(str(value)).expanduser().exists():
        return
    is_model = key.endswith(("hf_config_path", "tokenizer_path"))
    if is_model and str(value).count("/") == 1 and not str(value).startswith(("/", ".", "~")):
        return  # a Hugging Face id
    raise ConfigError(key, value, "there is no such file or folder; write its absolute path")


def _check_optimizer(config: DictConfig, policy: str) -> None:
    """Checks that the optimizer's class can be imported, as verl's workers do in their first step."""
    key = f"{policy}.actor.optim"
    module, name = OmegaConf.select(config, f"{key}.optimizer_impl"), OmegaConf.select(config, f"{key}.optimizer")
    if module is None:
        return
    loaded = _check_module(f"{key}.optimizer_impl", module)
    if name is not None and not hasattr(loaded, name):
        raise ConfigError(f"{key}.optimizer", name, f"{module} has no such optimizer")


def _check_module(key: str, value: Any) -> Any:
    """Returns the last of the modules that an option names, imported."""
    loaded = None
    for name in [value] if isinstance(value, str) else value or []:
        try:
            loaded = importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(key, name, f"this module cannot be imported ({error}); install it") from None
    return loaded


def _check_object(config: DictConfig, key: str, base: str) -> None:
    path, name = OmegaConf.select(config, f"{key}.path"), OmegaConf.select(config, f"{key}.name")
    if path is None:
        return
    if not name:
        raise ConfigError(f"{key}.name", name, f"name the object of {path}")
    loaded = _load_object(f"{key}.path", path, name)
    if base:
        wanted = _load_class(key, base)
        if not (isinstance(loaded, type) and issubclass(loaded, wanted)):
            raise ConfigError(f"{key}.name", name, f"must be a class that extends {base}")
    if key == "reward.custom_reward_function":
        _check_reward_function(config, loaded)


def _load_object(key: str, path: Any, name: str) -> Any:
    from verl.utils.import_utils import load_extern_object

    try:
        return load_extern_object(path, name)
    except FileNotFoundError:
        raise ConfigError(key, path, "there is no such file; write its absolute path") from None
    except AttributeError:
        raise ConfigError(key.replace(".path", ".name"), name, f"{path} defines nothing of this name") from None
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        cause = error.__cause__ or error
        raise ConfigError(key, path, f"it cannot be loaded: {type(cause).__name__}: {cause}") from None


def _load_class(key: str, value: Any) -> Any:
    from verl.utils.import_utils import load_class_from_fqn

    try:
        return load_class_from_fqn(str(value), key)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(key, value, f"name a class that can be imported, as package.module.Class ({error})") from None


def _check_reward_function(config: DictConfig, function: Callable[..., Any]) -> None:
    key, name = "reward.custom_reward_function.name", config.reward.custom_reward_function.name
    if not callable(function):
        raise ConfigError(key, name, "must be a function")
    extra = config.reward.custom_reward_function.get("reward_kwargs") or {}
    arguments = dict.fromkeys((*REWARD_ARGUMENTS, *extra))
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        fix = f"verl calls it with the arguments {', '.join(arguments)}, and it does not take them: {error}"
        raise ConfigError(key, name, fix) from None
