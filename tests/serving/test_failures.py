"""What the server does under load, when clients leave, when models fail, and with requests that have no key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import threading

import httpx
import openai
import pytest
from support.http_server import serving, until
from support.paths import SUPPORT
from support.rule_engine import RuleEngine, TypingEngine, rule_models
from support.slow_upstream import TEXT

from verl_rsim.evaluation import Planner, Reasoner, Rules
from verl_rsim.evaluation.engines.http import HttpEngine
from verl_rsim.serving.admission import ServeLimits, read_api_key
from verl_rsim.serving.app import EventStream
from verl_rsim.serving.service import Service
from verl_rsim.utils.errors import ConfigError, EngineBusy, EngineError, EngineTimeout

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]

ASK = {"model": "rsim", "messages": [{"role": "user", "content": "What is 2 + 3?"}]}
LONG = Rules(max_turns=4, max_step_tokens=400, max_answer_tokens=400)


def slow(prompt: str, seed: int) -> str:
    return "slow " * 80


def served(letters, rule=slow, limits=None, rules=LONG, **options) -> Service:
    return Service(*rule_models(letters, rule, TypingEngine, **options), rules, limits or ServeLimits())


def post(url: str, **change) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json={**ASK, **change}, timeout=30)


def test_two_hundred_at_once_none_lost_none_mixed_up(letters):
    def echo(prompt: str, seed: int) -> str:
        word = re.findall(r"word (\w+)", prompt)[-1]
        return f"It is {word}.\n\n" if prompt.count(f"It is {word}") < 2 else f"It is {word}.␄"

    service = served(letters, echo)

    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        messages = [{"role": "user", "content": f"Repeat the word w{number}x"}]
        stream = bool(number % 2)
        answer = await client.chat.completions.create(model="rsim", messages=messages, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    async def ask_all(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(200)))

    with serving(service) as url:
        answers = asyncio.run(ask_all(url))
        for number, answer in enumerate(answers):
            assert set(re.findall(r"w\d+x", answer)) == {f"w{number}x"}
        assert service.reasoner.engine.most_at_once <= service.limits.concurrency
        assert service.admission.active == 0


def test_beyond_the_queue_requests_are_turned_away_and_the_others_answered(letters):
    service = served(letters, limits=ServeLimits(concurrency=1, queue=1, max_n=2), pace=0.002)
    with serving(service) as url:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(post(url, max_tokens=200))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert service.reasoner.engine.most_at_once == 1
        assert post(url, n=2, max_tokens=5).status_code == 200


def test_what_no_model_can_read_is_refused_without_waiting_for_a_turn(letters):
    rules = Rules(max_turns=2, max_step_tokens=10, max_answer_tokens=10, max_prompt_tokens=1500)
    service = served(letters, rules=rules, limits=ServeLimits(concurrency=1, queue=0, max_n=1))
    with serving(service) as url, service.admission.admit(1):
        assert post(url).status_code == 429
        long = post(url, messages=[{"role": "user", "content": "long " * 2000}])
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_the_work(letters, stream):
    service = served(letters, pace=0.01)
    engine = service.reasoner.engine
    with serving(service) as url:
        with httpx.Client(timeout=30) as client, contextlib.suppress(httpx.ReadTimeout):
            options = {"json": {**ASK, "stream": stream, "n": 2}, "timeout": 0.5 if not stream else 30}
            with client.stream("POST", f"{url}/v1/chat/completions", **options) as answer:
                next(answer.iter_bytes())
        until(lambda: engine.cancelled == 2)
        until(lambda: service.admission.active == 0)
        assert "rsim_clients_gone_total 1.0" in httpx.get(f"{url}/metrics").text
        assert post(url, max_tokens=3).status_code == 200


def test_a_request_that_takes_too_long_is_ended(letters):
    service = served(letters, limits=ServeLimits(timeout=0.5), pace=0.02)
    with serving(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = post(url)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        with pytest.raises(openai.APIError, match=r"longer than 0\.5 s"):
            list(client.chat.completions.create(**ASK, stream=True))
        until(lambda: service.reasoner.engine.cancelled == 2)


def test_a_model_that_fails_is_reported_without_its_secrets(letters, caplog):
    service = served(letters, breaks_after=5)
    with serving(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = post(url)
        assert answer.status_code == 502
        assert answer.json()["error"] == {
            "message": "A model's engine failed or cannot be reached.",
            "type": "server_error",
            "param": None,
            "code": "upstream_error",
        }
        received = []
        with pytest.raises(openai.APIError, match="A model's engine failed"):
            received.extend(client.chat.completions.create(**ASK, stream=True))
        assert "".join(chunk.choices[0].delta.content for chunk in received) == "slow "
        assert caplog.text.count("the engine broke at secret-host:1234") == 2
        assert "rsim_engine_failures_total 2.0" in httpx.get(f"{url}/metrics").text
        service.reasoner.engine.breaks_after = None
        assert post(url).status_code == 200


@pytest.mark.parametrize(("error", "status"), [(EngineBusy, 503), (EngineTimeout, 504), (EngineError, 502)])
def test_kinds_of_failure_have_their_status_even_when_a_stream_was_asked_for(letters, error, status):
    service = served(letters)

    async def fail(*_, **__):
        raise error("internal")

    service.planner.engine.generate = fail
    with serving(service) as url:
        answer = post(url, stream=True)
        assert answer.status_code == status
        assert "internal" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_foresaw_is_an_error_with_its_id_in_the_log(letters, caplog, stream):
    service = served(letters)

    async def fail(*_, **__):
        raise ZeroDivisionError

    service.planner.engine.generate = fail
    with serving(service) as url:
        answer = post(url, stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert f"{answer.headers['x-request-id']} failed" in caplog.text
        assert httpx.get(f"{url}/health").status_code == 200


def test_what_nobody_foresaw_in_mid_stream_ends_the_stream_with_an_error(letters):
    service = served(letters)
    engine = service.reasoner.engine
    generate = engine.generate

    async def fail_late(prompt_ids, params, on_tokens=None):
        await generate(prompt_ids, params, on_tokens)
        raise ZeroDivisionError

    engine.generate = fail_late
    with (
        serving(service) as url,
        httpx.stream("POST", f"{url}/v1/chat/completions", json=ASK | {"stream": True}) as sent,
    ):
        lines = []
        with contextlib.suppress(httpx.RemoteProtocolError):  # the connection is closed in mid-stream, too
            lines.extend(line for line in sent.iter_lines() if line)
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "internal_error"


def test_a_client_that_does_not_read_is_given_up():
    async def events():
        while True:
            yield "data: {}\n\n"

    async def stuck(message):
        await asyncio.sleep(60)

    async def receive():
        await asyncio.sleep(60)

    work = events()
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}

    async def run() -> None:
        await asyncio.wait_for(EventStream(work, work, 0.1)(scope, receive, stuck), 10)

    asyncio.run(run())
    assert work.ag_frame is None, "what it worked on is closed"


def test_an_upstream_killed_in_mid_stream(letters):
    command = [sys.executable, str(SUPPORT / "slow_upstream.py"), "0", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upstream:
        try:
            engine = HttpEngine(f"http://127.0.0.1:{int(upstream.stdout.readline())}", connect_seconds=1)
            engine.context = 4096
            planner = Planner("rule planner", None, letters, RuleEngine(letters, slow))
            rules = Rules(max_turns=2, max_step_tokens=400, max_answer_tokens=400)
            service = Service(planner, Reasoner("slow", None, letters, engine), rules)
            with serving(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                streamed = list(client.chat.completions.create(**ASK, max_tokens=40, stream=True))
                text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
                assert text == (TEXT * 3)[:40]

                with httpx.stream("POST", f"{url}/v1/chat/completions", json={**ASK, "stream": True}) as leaving:
                    assert any('"content": "Z"' in line for line in leaving.iter_lines())  # stops there
                assert upstream.stdout.readline() == "client gone\n"

                stream = client.chat.completions.create(**ASK, stream=True)
                received = [next(stream).choices[0].delta.content for _ in range(5)]
                upstream.kill()
                with pytest.raises(openai.APIError, match="A model's engine failed"):
                    received.extend(chunk.choices[0].delta.content for chunk in stream)
                assert TEXT.startswith("".join(received)[: len(TEXT)])
                answer = httpx.get(f"{url}/health")
                assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
                assert post(url).status_code == 502
                assert httpx.get(f"{url}/v1/models").status_code == 200
        finally:
            upstream.kill()


def test_a_key_is_asked_for_and_never_logged(letters, caplog):
    caplog.set_level(logging.DEBUG, "verl_rsim.serving")
    with serving(served(letters), key="s3cret") as url:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "é"},
        ):
            encoded = {name: value.encode() for name, value in headers.items()}
            for path in ("/v1/models", "/metrics", "/none"):
                answer = httpx.get(url + path, headers=encoded)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        for path in ("/", "/health", "/page.js", "/page.css", "/report.css"):
            assert httpx.get(url + path).status_code == 200
        with openai.OpenAI(base_url=f"{url}/v1", api_key="s3cret") as client:
            assert client.chat.completions.create(**ASK, max_tokens=3).choices
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong").models.list()
        httpx.get(f"{url}/v1/models?api_key=s3cret")
    assert "POST '/v1/chat/completions' 200" in caplog.text
    for hidden in ("s3cret", "What is 2 + 3?", "slow slow"):
        assert hidden not in caplog.text


def test_another_host_name_is_refused(letters):
    with serving(served(letters)) as url:
        port = url.rpartition(":")[2]
        for host in ("localhost", f"localhost:{port}", "127.0.0.1", "[::1]:80"):
            assert httpx.get(f"{url}/health", headers={"Host": host}).status_code == 200
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{url}/v1/chat/completions", headers=asked)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]
        for host in ("evil.example", "localhost.evil.example", "", "[::1"):
            answer = httpx.get(f"{url}/health", headers={"Host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_host")


def test_a_body_without_a_length_is_bounded_too(letters):
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 1024

    with serving(served(letters, limits=ServeLimits(max_body=4096))) as url:
        answer = None
        with contextlib.suppress(httpx.WriteError):  # the server hangs up
            headers = {"Content-Type": "application/json"}
            answer = httpx.post(f"{url}/v1/chat/completions", content=endless(), headers=headers)
        assert answer is None or answer.status_code == 413
        assert sent < 100_000
        assert post(url, max_tokens=3).status_code == 200


def test_a_body_that_does_not_come(letters, monkeypatch):
    monkeypatch.setattr("verl_rsim.serving.app.BODY_SECONDS", 0.3)
    with serving(served(letters)) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as raw:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        raw.settimeout(5)
        assert raw.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_requests_under_way_at_the_end_are_answered(letters):
    service = served(letters, pace=0.005)
    answers: list[httpx.Response] = []
    with serving(service) as url:
        thread = threading.Thread(target=lambda: answers.append(post(url, max_tokens=100)))
        thread.start()
        until(lambda: service.admission.active == 1)
    thread.join(10)
    assert answers[0].status_code == 200
    assert service.reasoner.engine.closes == service.planner.engine.closes == 1


def test_requests_that_outlive_the_end_are_told_so(letters):
    service = served(letters, pace=0.1, limits=ServeLimits(drain=0.5))
    answers: list[httpx.Response] = []
    with serving(service) as url:
        threads = [threading.Thread(target=lambda s=s: answers.append(post(url, stream=s))) for s in (False, True)]
        for thread in threads:
            thread.start()
        until(lambda: len(service.reasoner.engine.requests) == 2)
    for thread in threads:
        thread.join(10)
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert all("The server is shutting down." in answer.text for answer in answers)
    assert service.reasoner.engine.cancelled == 2


def test_limits_and_keys_that_cannot_be(tmp_path, monkeypatch):
    for options, key in (({"concurrency": 0}, "concurrency"), ({"timeout": float("nan")}, "timeout"),
                         ({"concurrency": 1, "queue": 0, "max_n": 2}, "max_n")):  # fmt: skip
        with pytest.raises(ConfigError, match=key):
            ServeLimits(**options)
    monkeypatch.setenv("RSIM_SERVE_API_KEY", "abc")
    assert read_api_key(None) == "abc"
    assert read_api_key(None) is None, "the engines' processes do not see it"
    (tmp_path / "key").write_text("def\n")
    assert read_api_key(tmp_path / "key") == "def"
    (tmp_path / "key").write_text("")
    for file in (tmp_path / "key", tmp_path / "none"):
        with pytest.raises(ConfigError, match="api_key_file"):
            read_api_key(file)
