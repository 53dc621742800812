"""The server as OpenAI's client and curl meet it: answers, streams, strategies, usage, refusals."""

from __future__ import annotations

import json
import subprocess

import httpx
import openai
import pytest
from support.http_server import serving
from support.rule_engine import TypingEngine, rule_models

from verl_rsim.core.strategies import STRATEGIES, strategy_index
from verl_rsim.evaluation import Rules
from verl_rsim.serving.admission import ServeLimits
from verl_rsim.serving.service import Service

RULES = Rules(max_turns=3, max_step_tokens=40, max_answer_tokens=20)
ASK = [{"role": "user", "content": "What is 2 + 3?"}]


def steps(prompt: str, seed: int) -> str:
    """Two steps, then the end."""
    written = prompt.rpartition("<a>")[2].count("Zwei und drei → ")
    return ("Zwei und drei → fünf.\n\n", "Zwei und drei → fünf, nämlich 5 ✓.\n\n", "Zwei und drei → 5.␄")[written]


@pytest.fixture(scope="module")
def service(letters):
    return Service(*rule_models(letters, steps, TypingEngine), RULES, ServeLimits(max_n=4, max_body=8192))


@pytest.fixture(scope="module")
def url(service):
    with serving(service) as address:
        yield address


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client, messages=ASK, **options):
    return client.chat.completions.create(model="rsim", messages=messages, **{"seed": 3, **options})


def joined(stream) -> tuple[dict[int, str], dict[int, str], list]:
    texts, reasons, chunks = {}, {}, list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, chunks


def test_an_answer_and_what_it_cost(client, service, letters):
    answer = ask(client)
    (choice,) = answer.choices
    turns = choice.rsim["turns"]
    assert answer.object == "chat.completion"
    assert (answer.model, choice.message.role) == ("rsim", "assistant")
    assert choice.message.content.startswith("Zwei und drei → fünf.")
    assert sum(turn["tokens"] for turn in turns) == answer.usage.rsim["reasoner"]["completion_tokens"]
    assert answer.usage.rsim["planner"]["completion_tokens"] == len(turns)
    assert all(turn["strategy"] in [s.name for s in STRATEGIES] for turn in turns)
    assert "reasoning_content" not in choice.message.model_extra
    given, used = answer.usage.rsim["planner"], answer.usage.rsim["reasoner"]
    assert answer.usage.prompt_tokens == given["prompt_tokens"] + used["prompt_tokens"]
    assert answer.usage.completion_tokens == given["completion_tokens"] + used["completion_tokens"]
    last_prompt, _ = service.reasoner.engine.requests[-1]
    before_last = sum(turn["tokens"] for turn in turns[:-1])
    assert used["prompt_tokens"] == len(last_prompt) - before_last


def test_a_stream_says_the_same_piece_by_piece(client):
    whole = ask(client, stop=["never"])
    texts, reasons, chunks = joined(ask(client, stream=True, stream_options={"include_usage": True}))
    assert texts == {0: whole.choices[0].message.content}
    assert reasons == {0: whole.choices[0].finish_reason}
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > len(texts[0]) // 2
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert chunks[-2].choices[0].rsim == whole.choices[0].rsim
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_clients_helper_for_streams(client):
    with client.chat.completions.stream(model="rsim", messages=ASK, seed=3) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == ask(client).choices[0].message.content


def test_strategies_appear_where_they_are_asked_for(client):
    def told(**options):
        return ask(client, extra_body={"rsim": options}).choices[0]

    plain, thought, inline = told(), told(strategies="reasoning_content"), told(strategies="inline")
    chosen = [STRATEGIES[strategy_index(turn["strategy"])] for turn in plain.rsim["turns"]]
    assert thought.message.content == plain.message.content
    assert thought.message.reasoning_content == "".join(f"[{s.title}] {s.instruction}\n" for s in chosen)
    assert inline.message.content.startswith(f"[{chosen[0].title}]\nZwei und drei")
    assert [line for line in inline.message.content.splitlines() if line.startswith("[")] == [
        f"[{s.title}]" for s in chosen
    ]
    streamed = list(ask(client, stream=True, extra_body={"rsim": {"strategies": "reasoning_content"}}))
    deltas = [chunk.choices[0] for chunk in streamed]
    assert "".join(getattr(d.delta, "reasoning_content", "") for d in deltas) == thought.message.reasoning_content
    turns = [d.rsim for d in deltas if "strategy" in getattr(d, "rsim", {})]
    assert turns == [{"turn": i, "strategy": s.name} for i, s in enumerate(chosen)]
    assert "reasoning_content" in deltas[1].delta.model_extra  # before the step that it belongs to


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_and_the_work(client, service, stream):
    cancelled = service.reasoner.engine.cancelled
    answer = ask(client, stop=["never", "fünf, n"], stream=stream)
    if stream:
        texts, reasons, chunks = joined(answer)
        text, reason, rsim = texts[0], reasons[0], chunks[-1].choices[0].rsim
    else:
        text, reason, rsim = answer.choices[0].message.content, answer.choices[0].finish_reason, answer.choices[0].rsim
    assert text == "Zwei und drei → fünf.\n\nZwei und drei → "
    assert (reason, rsim["stop"], rsim["turns"][-1]["end"]) == ("stop", "stop_string", "stop_string")
    assert rsim["turns"][-1]["tokens"] == len("Zwei und drei → fünf, n")
    assert service.reasoner.engine.cancelled == cancelled + 1


def test_injection_as_user_turns(letters):
    def rule(prompt: str, seed: int) -> str:
        return f"Step {prompt.count('<a>')}.␄"

    service = Service(*rule_models(letters, rule, TypingEngine), Rules(3, 40, 20, injection="chat"))
    with serving(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        whole = ask(client).choices[0]
        texts, reasons, _ = joined(ask(client, stream=True))
    steps = len(whole.rsim["turns"])
    assert steps > 1
    assert texts[0] == whole.message.content == "\n\n".join(f"Step {i + 1}." for i in range(steps))
    assert reasons[0] == whole.finish_reason == ("stop" if whole.rsim["stop"] == "termination" else "length")


@pytest.mark.parametrize("bound", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_bounds_what_the_reasoner_writes(client, bound):
    whole = ask(client).choices[0].message.content
    for tokens in (1, 10, 23, 30):
        answer = ask(client, **{bound: tokens})
        assert answer.usage.rsim["reasoner"]["completion_tokens"] == tokens
        assert answer.choices[0].message.content == whole[:tokens]
        assert answer.choices[0].finish_reason == "length"
    assert ask(client, **{bound: 1000}).choices[0].message.content == whole


def test_n_answers_are_played_side_by_side(client):
    whole = ask(client, n=3, temperature=1.0)
    texts, reasons, chunks = joined(ask(client, n=3, temperature=1.0, stream=True))
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert set(reasons) == {0, 1, 2}
    order = [chunk.choices[0].index for chunk in chunks]
    assert order != sorted(order)
    assert len({str(choice.rsim["turns"]) for choice in whole.choices}) > 1


def test_a_conversation_of_parts_and_roles(client, service):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        ask(client).choices[0].message,
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    ask(client, messages=messages, max_tokens=1)
    prompt = service.reasoner.codec.tokenizer.decode(service.reasoner.engine.requests[-1][0])
    assert prompt.startswith("<s>Be brief.<u>One.\nTwo.<a>Zwei")


def test_plain_curl(url):
    body = json.dumps({"model": "rsim", "messages": ASK, "seed": 3})
    command = ["curl", "-sS", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d"]
    whole = json.loads(subprocess.check_output([*command, body], timeout=30))
    body = json.dumps({"model": "rsim", "messages": ASK, "seed": 3, "stream": True})
    lines = subprocess.check_output([*command, body, "-N"], timeout=30, text=True).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]


def test_models_health_and_metrics(client, url):
    assert [model.id for model in client.models.list()] == ["rsim"]
    assert client.models.retrieve("rsim").max_model_len == 1 << 20
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    ask(client)
    page = httpx.get(f"{url}/metrics").text
    for name in (
        'rsim_http_requests_total{route="/v1/chat/completions",status="200"}',
        'rsim_tokens_total{kind="written",role="planner"}',
        "rsim_first_text_seconds_count",
        "rsim_episodes_admitted 0.0",
        "rsim_strategies_total{strategy=",
    ):
        assert name in page


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": None}, 400, "messages", "missing_required_parameter"),
        ({"messages": [{"role": "assistant", "content": "Hm"}]}, 400, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content", None),
        ({"messages": [{"role": "user", "content": "x" * 9000}]}, 413, None, "request_too_large"),
        ({"model": "gpt-4"}, 404, "model", "model_not_found"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": 10**30}, 400, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 1 << 40}, 400, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": "5"}, 400, "max_tokens", "invalid_value"),
        ({"temperature": 2.5}, 400, "temperature", "invalid_value"),
        ({"temperature": -1}, 400, "temperature", "invalid_value"),
        ({"top_p": 0}, 400, "top_p", "invalid_value"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 5}, 400, "n", "invalid_value"),
        ({"n": True}, 400, "n", "invalid_value"),
        ({"stop": ["a"] * 5}, 400, "stop", "invalid_value"),
        ({"stop": ""}, 400, "stop[0]", "invalid_value"),
        ({"seed": 1 << 70}, 400, "seed", "invalid_value"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "unsupported_parameter"),
        ({"logprobs": True}, 400, "logprobs", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "unsupported_parameter"),
        ({"top_k": 5}, 400, "top_k", "unknown_parameter"),
        ({"rsim": {"strategies": "all"}}, 400, "rsim.strategies", "invalid_value"),
        ({"rsim": {"turns": 3}}, 400, "rsim.turns", "unknown_parameter"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(url, change, status, param, code):
    answer = httpx.post(f"{url}/v1/chat/completions", json={"model": "rsim", "messages": ASK, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert error["code"] == (code or "invalid_value")
    assert param is None or param in error["message"] or param == "model"


def test_what_asks_for_nothing_is_accepted(client):
    nothing = {"user": "me", "store": True, "presence_penalty": 0, "tools": [], "logprobs": False, "stop": None}
    nothing |= {"response_format": {"type": "text"}, "metadata": {"a": "b"}, "temperature": None}
    assert ask(client, **nothing).choices


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b'{"messages": [NaN]}', b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 3000 + b"]" * 3000],
)
def test_what_is_no_json_object_is_said_to_be_none(url, body):
    answer = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_errors_outside_completions_have_openais_shape_too(url):
    cases = {("GET", "/v1/none"): 404, ("GET", "/v1/chat/completions"): 405, ("POST", "/v1/models"): 405}
    for (method, path), status in cases.items():
        answer = httpx.request(method, url + path)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"
    answer = httpx.post(f"{url}/v1/chat/completions", content="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.retrieve("other")


def test_a_prompt_beyond_the_context_is_refused_in_both_forms(letters):
    rules = Rules(max_turns=2, max_step_tokens=10, max_answer_tokens=10, max_prompt_tokens=1500)
    service = Service(*rule_models(letters, steps), rules)
    with serving(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match="too long") as refused:
                ask(client, messages=[{"role": "user", "content": "x" * 2000}], stream=stream)
            assert refused.value.code == "context_length_exceeded"


def test_a_conversation_the_chat_template_refuses(letters, monkeypatch):
    from jinja2 import TemplateError

    def refuse(*_, **__):
        raise TemplateError("System role not supported")

    service = Service(*rule_models(letters, steps))
    with serving(service) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        monkeypatch.setattr(letters.tokenizer, "apply_chat_template", refuse)
        with pytest.raises(openai.BadRequestError, match="System role not supported"):
            ask(client)
