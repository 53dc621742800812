"""What the engine of this machine makes of vLLM's errors; that it plays is shown in e2e/."""

from __future__ import annotations

import asyncio

import pytest
from vllm import exceptions

from verl_rsim.evaluation.engines.vllm import VllmEngine
from verl_rsim.utils.errors import EngineError


class Refusing:
    """An engine of vLLM's that takes no request."""

    async def generate(self, prompt, sampling, request_id):
        raise exceptions.VLLMValidationError("the prompt is too long")
        yield


@pytest.mark.parametrize("version", ["0.27", "0.24"])
def test_a_refused_request_is_an_engine_error_in_each_supported_vllm(version, monkeypatch):
    if version == "0.24":  # has the exception, and not the one it is derived from since
        monkeypatch.delattr(exceptions, "VLLMClientError")
    engine = VllmEngine("model", context=8)
    engine._llm = Refusing()
    with pytest.raises(EngineError, match=r"model: the engine failed: the prompt is too long"):
        asyncio.run(engine.generate([1], {}))
