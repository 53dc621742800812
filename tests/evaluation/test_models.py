"""Finding models: folders, checkpoints, endpoints, and what is none of these."""

from __future__ import annotations

import asyncio
import json
import shutil
from types import SimpleNamespace

import httpx
import pytest
from support.http_server import serving

from verl_rsim.core.episode import Generation
from verl_rsim.core.prompts import Codec, eos_ids
from verl_rsim.evaluation import Planner, Reasoner, Rules, Sampling, models, play
from verl_rsim.serving.service import Service
from verl_rsim.utils.errors import ConfigError


def test_folders_and_names_below_the_home(home, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(home))
    for source in (home / "models/tiny-qwen2", "tiny-qwen2"):
        planner = Planner.from_pretrained(source, context=1024)
        assert planner.folder == home / "models/tiny-qwen2"
        assert planner.engine.context == 1024
    assert Reasoner.from_pretrained("tiny-llama").engine.context == 2048  # what the model takes
    eos = planner.codec.tokenizer.eos_token_id
    assert planner.codec.eos_ids == {eos}


@pytest.mark.parametrize("source", ["/nowhere/model", "./model", "a/b/c"])
def test_a_wrong_path_is_named_before_anything_is_loaded(source):
    with pytest.raises(ConfigError, match=r"planner='.*': there is no model here"):
        Planner.from_pretrained(source)


def test_a_name_the_hub_cannot_give():
    with pytest.raises(ConfigError, match=r"reasoner='no-such/model': its tokenizer and config cannot be loaded"):
        Reasoner.from_pretrained("no-such/model")


def test_a_tokenizer_without_chat_template_or_labels(home, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home / "models/tiny-llama")
    (tmp_path / "config.json").write_text((home / "models/tiny-llama/config.json").read_text())
    template, tokenizer.chat_template = tokenizer.chat_template, None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no chat template"):
        Planner.from_pretrained(tmp_path)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"]["seven"] = state["model"]["vocab"].pop("7")
    tokenizer = type(tokenizer)(tokenizer_object=_load(state), chat_template=template)
    tokenizer.save_pretrained(tmp_path)
    assert Reasoner.from_pretrained(tmp_path).folder == tmp_path
    codec = Planner.from_pretrained(tmp_path).codec
    with pytest.raises(ConfigError, match="no single token for the strategy label '7'"):
        Rules().dialogue(codec, 4000, codec, 4000)
    assert not Rules(planner_decoding="free").dialogue(codec, 4000, codec, 4000).constrained


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no users here') }}", "no users here"),
        ("{{ messages | length }}", "leaves the question out"),
    ],
)
def test_a_chat_template_that_cannot_be_used(home, tmp_path, template, message):
    shutil.copytree(home / "models/tiny-llama", tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match=f"reasoner=.*its chat template .*{message}"):
        Reasoner.from_pretrained(tmp_path / "model")


def _load(state: dict):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(state))


def test_checkpoints_are_exported_once(home, tmp_path, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path / "home"))
    checkpoint = tmp_path / "global_step_3"
    (checkpoint / "planner").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not a complete verl-rsim checkpoint"):
        Planner.from_pretrained(checkpoint)
    (checkpoint / "rsim.json").write_text(json.dumps({"step": 3, "stage": 0, "trained": ["planner"], "format": 1}))
    calls = []

    def export(source, out):
        import shutil

        calls.append(source)
        shutil.copytree(home / "models/tiny-qwen2", out / "planner")

    monkeypatch.setattr(models, "export_policies", export)
    first, second = Planner.from_pretrained(checkpoint), Planner.from_pretrained(checkpoint)
    assert first.folder == second.folder
    assert (first.folder / "config.json").is_file()
    assert calls == [checkpoint]
    with pytest.raises(ConfigError, match=r"reasoner=.*trained the planner only; name the reasoner's own model"):
        Reasoner.from_pretrained(checkpoint)


class Client:
    """verl's server client and an engine in one: the next token is a function of the prompt's ids."""

    name, context = "client", 4000

    def __init__(self):
        self.asked = []

    @staticmethod
    def ids(prompt_ids, params):
        allowed = params.get("allowed_token_ids") or range(3, 200)
        return [allowed[sum(prompt_ids) * 31 % len(allowed)]] * min(params["max_tokens"], 3)

    async def generate(self, *args, **kwargs):
        if "request_id" in kwargs:
            prompt, params = kwargs["prompt_ids"], kwargs["sampling_params"]
            ids = self.ids(prompt, params)
            self.asked.append((tuple(prompt), {k: v for k, v in params.items() if k != "logprobs"}))
            return SimpleNamespace(
                token_ids=ids, log_probs=[-1.0] * len(ids), stop_reason="completed", extra_fields={}, num_preempted=None
            )
        prompt, params = args
        self.asked.append((tuple(prompt), dict(params)))
        ids = self.ids(prompt, params)
        if kwargs["on_tokens"]:
            kwargs["on_tokens"](ids)
        return Generation(tuple(ids), (-1.0,) * len(ids))

    async def close(self):
        pass


@pytest.mark.parametrize("decoding", ["constrained", "free"])
@pytest.mark.parametrize("stream", [False, True])
def test_training_evaluation_and_serving_ask_the_same_and_get_the_same_ids(tokenizers, stream, decoding):
    from verl_rsim.training.vllm_sampler import ServerSampler

    planner, reasoner = (Codec(tokenizers[name], eos_ids(tokenizers[name])) for name in ("qwen2", "llama"))
    rules, sampling = Rules(4, 20, 20, planner_decoding=decoding), Sampling(0.7, 0.9)
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    server, engine, served = Client(), Client(), Client()
    dialogue = rules.dialogue(planner, Client.context, reasoner, Client.context)
    trained = [ServerSampler("planner", server, sampling.params(), "7/0") for _ in range(2)]
    first = asyncio.run(dialogue.play(question, *trained))
    seats = Planner("p", None, planner, engine), Reasoner("r", None, reasoner, engine)
    second = asyncio.run(play(question, *seats, rules, sampling, "7/0"))
    assert first == second
    assert len(first.turns) > 1
    assert {len(turn.choice.token_ids) for turn in first.turns} == {1 if decoding == "constrained" else 3}

    service = Service(Planner("p", None, planner, served), Reasoner("r", None, reasoner, served), rules)
    options = {"temperature": 0.7, "top_p": 0.9, "seed": 7, "stream": stream, "rsim": {"return_token_ids": True}}
    with serving(service) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": question, **options}).text
    assert server.asked == engine.asked == served.asked
    (choice,) = json.loads(answer.split("data: ")[-2] if stream else answer)["choices"]
    got = [(turn["choice_ids"], turn["injected_ids"], turn["step_ids"]) for turn in choice["rsim"]["turns"]]
    ids = [(turn.choice.token_ids, turn.injected_ids, turn.step.token_ids) for turn in first.turns]
    assert got == [tuple(list(part) for part in turn) for turn in ids]
