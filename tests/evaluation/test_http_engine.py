"""The engine over HTTP against a server played by a function: what it asks, what it refuses, how it tries again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math

import httpx
import pytest

from verl_rsim.core.episode import Request
from verl_rsim.evaluation.engines import http
from verl_rsim.evaluation.engines.base import EngineSampler, Sampling
from verl_rsim.evaluation.engines.http import HttpEngine
from verl_rsim.utils.errors import EngineError

CARD = {"id": "served", "root": "/models/served", "max_model_len": 512}


class Server:
    """Answers as vLLM's server does; ``change`` may alter a completion, ``failures`` come first."""

    def __init__(self, letters, change=lambda choice, body: choice, failures=(), card=CARD):
        self.letters, self.change, self.failures, self.card = letters, change, list(failures), card
        self.bodies: list[dict] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [self.card]})
        if request.url.path != "/v1/completions":
            return httpx.Response(404)
        self.bodies.append(body := json.loads(request.content))
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        prompt = body["prompt"]
        ids = list(self.letters.encode(prompt)) if isinstance(prompt, str) else prompt
        token = body.get("allowed_token_ids", [65])[0]
        choice = {"token_ids": [token], "prompt_token_ids": ids, "logprobs": {"token_logprobs": [-0.25]}}
        return httpx.Response(200, json={"choices": [self.change(choice, body)]})


def engine(server, url="http://host:8000/v1/") -> HttpEngine:
    return HttpEngine(url, transport=httpx.MockTransport(server))


def ask(engine, request=Request((1, 2, 3), 5, ("\n\n",), turn=1), on_tokens=None):  # noqa: B008
    async def once():
        try:
            return await EngineSampler(engine, Sampling(0.5), "seed", on_tokens)(request)
        finally:
            await engine.close()

    return asyncio.run(once())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    async def at_once(seconds):
        pass

    monkeypatch.setattr(http.asyncio, "sleep", at_once)


def test_the_request_names_everything_the_answer_depends_on(letters):
    server = Server(letters)
    found = engine(server)
    found.check(letters)
    server.bodies.clear()
    assert ask(found).token_ids == (65,)
    (body,) = server.bodies
    assert body.pop("seed") > 0
    assert body == {
        "model": "served",
        "prompt": [1, 2, 3],
        "max_tokens": 5,
        "stop": ["\n\n"],
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "logprobs": 0,
        "return_token_ids": True,
    }
    assert (found.name, found.context) == ("http://host:8000", 512)


def without(key):
    return lambda choice, body: {name: value for name, value in choice.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("token_ids"), "returns no token ids"),
        (lambda choice, body: choice | {"token_ids": [7]}, "ignores allowed_token_ids"),
        (
            lambda choice, body: choice | {"prompt_token_ids": [9, *choice["prompt_token_ids"]]},
            "encodes text differently",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_exact_is_refused(letters, change, message):
    with pytest.raises(EngineError, match=message):
        engine(Server(letters, change)).check(letters)


def test_a_reasoners_endpoint_need_not_keep_to_labels(letters):
    server = Server(letters, lambda choice, body: choice | {"token_ids": [7]})
    engine(server).check(letters, labels=False)
    assert not any("allowed_token_ids" in body for body in server.bodies)
    with pytest.raises(EngineError, match="returns no token ids"):
        engine(Server(letters, without("token_ids"))).check(letters, labels=False)


def events(*data: str) -> httpx.Response:
    return httpx.Response(200, text="".join(f"data: {item}\n\n" for item in data))


def chunk(*ids: int, text: str = "") -> str:
    choice = {"token_ids": ids, "text": text, "logprobs": {"token_logprobs": [-0.5] * len(ids)}}
    return json.dumps({"choices": [choice]}, ensure_ascii=False)


def test_tokens_are_told_as_they_are_streamed(letters):
    server = Server(
        letters, failures=[events(chunk(5), chunk(6, 7, text="\u2028\x85"), chunk(), '{"usage": {}}', "[DONE]")]
    )
    told = []
    generation = ask(engine(server), on_tokens=told.append)
    assert told == [[5], [6, 7]]
    assert generation.token_ids == (5, 6, 7)
    assert generation.log_probs == (-0.5,) * 3
    assert server.bodies[0]["stream"] is True


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (events(chunk(5)), "ended before the completion"),
        (events(chunk(5), '{"error": {"message": "out of memory"}}'), "failed in mid-stream: .*out of memory"),
        (events("<html>"), "invalid JSON"),
        (events("[DONE]"), "without token ids"),
        (httpx.Response(400, text="too long"), "answered 400: 'too long'"),
    ],
)
def test_a_stream_that_breaks_is_not_asked_for_again(letters, failure, message):
    server = Server(letters, failures=[failure])
    with pytest.raises(EngineError, match=message):
        ask(engine(server), on_tokens=lambda ids: None)
    assert len(server.bodies) == 1


def test_a_stream_that_is_turned_away_is_asked_for_again(letters):
    server = Server(letters, failures=[httpx.Response(503), httpx.ConnectError("no"), events(chunk(5), "[DONE]")])
    assert ask(engine(server), on_tokens=lambda ids: None).token_ids == (5,)


@pytest.mark.parametrize("same", [True, False])
def test_an_endpoint_with_another_chat_template_is_refused(letters, same):
    def server(request):
        if request.url.path == "/tokenize":
            ids = list(letters.chat(json.loads(request.content)["messages"]))
            return httpx.Response(200, json={"tokens": ids if same else [1, *ids]})
        return Server(letters)(request)

    with contextlib.nullcontext() if same else pytest.raises(EngineError, match="chat template differs from that of"):
        engine(server).check(letters)


def test_log_probs_may_be_missing(letters):
    assert math.isnan(ask(engine(Server(letters, without("logprobs")))).log_probs[0])


def test_a_server_that_turns_a_request_away_is_asked_again(letters):
    busy = [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(429)]
    server = Server(letters, failures=busy)
    assert ask(engine(server)).token_ids == (65,)
    assert len(server.bodies) == 4
    with pytest.raises(EngineError, match="answered 503"):
        ask(engine(Server(letters, failures=[httpx.Response(503)] * 4)))
    with pytest.raises(EngineError, match=r"cannot be reached \(ConnectError"):
        ask(engine(Server(letters, failures=[httpx.ConnectError("refused")] * 4)))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (httpx.Response(400, text="too long"), "answered 400: 'too long'"),
        (httpx.Response(401, text="who?"), "set RSIM_API_KEY"),
        (httpx.Response(404), "chat completions cannot continue token ids"),
        (httpx.Response(200, text="<html>"), "no JSON"),
        (httpx.Response(200, json={"choices": []}), "without a completion"),
        (httpx.ReadTimeout("slow"), "no answer in time"),
    ],
)
def test_what_asking_again_does_not_mend_is_an_error_at_once(letters, failure, message):
    server = Server(letters, failures=[failure])
    with pytest.raises(EngineError, match=message):
        ask(engine(server))
    assert len(server.bodies) == 1


def test_the_key_is_sent_and_passwords_in_urls_are_refused(letters, monkeypatch):
    monkeypatch.setenv("RSIM_API_KEY", "secret")
    seen = []

    def server(request):
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"data": [CARD]})

    engine(server)
    assert seen == ["Bearer secret"]
    with pytest.raises(EngineError, match="carries a password") as error:
        HttpEngine("http://me:hidden@host")
    assert "hidden" not in str(error.value)
    with pytest.raises(EngineError, match="is no URL"):
        HttpEngine("http://")


def test_a_server_that_is_not_there_is_named_within_seconds():
    with pytest.raises(EngineError, match=r"http://127\.0\.0\.1:9: cannot be reached .*check the URL"):
        HttpEngine("http://127.0.0.1:9")
