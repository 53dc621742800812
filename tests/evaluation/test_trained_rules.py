"""A planner brings the rules of its training along: to eval, serve, transfer, chains and Python."""

from __future__ import annotations

import asyncio
import io
import json
import shutil

import pytest
from rich.console import Console
from support.rule_engine import rule_models
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.core.policy_description import POLICY_FILE, PolicyDescription, TrainedRules, find_description
from verl_rsim.core.rules import Rules
from verl_rsim.evaluation import Planner, Reasoner, evaluate, play
from verl_rsim.evaluation.matrix import parse_matrix
from verl_rsim.evaluation.trained_rules import resolve_rules
from verl_rsim.evaluation.transfer import run_transfer
from verl_rsim.serving import server
from verl_rsim.utils.errors import ConfigError, RsimError

TEMPLATES = {"planner": {"enable_thinking": False}, "reasoner": {"date": "today"}}
TRAINED = TrainedRules(Rules(3, 40, 41, injection="chat", delimiter="##", planner_decoding="free"), True, TEMPLATES)
HINT = f"not say by which rules to play (no {POLICY_FILE}); assumed: max_turns 6, "
CHANGED = "Other rules than in training: "


def describe(role: str = "planner", rules: TrainedRules = TRAINED) -> PolicyDescription:
    return PolicyDescription(role=role, base_model="tiny-qwen2", step=7, rules=rules)


@pytest.fixture
def exported(home, tmp_path, monkeypatch):
    """Makes the folder of an exported policy."""
    monkeypatch.setenv("RSIM_HOME", str(home))

    def make(role: str = "planner", rules: TrainedRules = TRAINED, name: str = "export"):
        folder = tmp_path / name / role
        shutil.copytree(home / "models/tiny-qwen2", folder)
        describe(role, rules).write(folder)
        return folder

    return make


@pytest.fixture
def run(home, monkeypatch):
    """Runs eval or serve up to the first model's load; returns the pair, the rules and what was printed."""
    monkeypatch.setenv("RSIM_HOME", str(home))
    seen = {}

    async def evaluated(player, *_, **__):
        seen["eval"] = player.planners["planner"], player.reasoner, player.rules

    def served(service, *_):
        seen["serve"] = service.planner, service.reasoner, service.rules

    monkeypatch.setattr(evaluate, "evaluate", evaluated)
    monkeypatch.setattr(evaluate, "write_report", lambda *_: None)
    monkeypatch.setattr(server, "run", served)

    def invoke(command: str, planner, *options: str):
        given = ["--planner", str(planner), "--reasoner", "tiny-llama", *options]
        given += ["--port", "0"] if command == "serve" else ["--data", "arithmetic", "--controls", "none"]
        done = CliRunner().invoke(app, [command, *given], env={"COLUMNS": "80"})
        if done.exception:
            raise done.exception
        return (*seen[command], done.output)

    return invoke


@pytest.mark.parametrize("command", ["eval", "serve"])
def test_a_planner_is_played_by_its_own_rules_without_a_flag(exported, run, command):
    planner, reasoner, rules, shown = run(command, exported())
    assert rules == TRAINED.rules
    assert (planner.codec.template_kwargs, reasoner.codec.template_kwargs) == tuple(TEMPLATES.values())
    assert CHANGED not in shown
    assert HINT not in shown


@pytest.mark.parametrize("command", ["eval", "serve"])
def test_a_flag_wins_and_says_so_in_one_line(exported, run, command):
    flags = ("--max-turns", "8", "--max-step-tokens", "40", "--template", '{"enable_thinking": true}')
    planner, reasoner, rules, shown = run(command, exported(), *flags)
    assert (rules.max_turns, rules.max_step_tokens, rules.max_answer_tokens) == (8, 40, 41)
    assert planner.codec.template_kwargs == reasoner.codec.template_kwargs == {"enable_thinking": True}
    (line,) = [line for line in shown.splitlines() if CHANGED in line]
    assert "max_turns 8, trained with 3; template_kwargs" in line
    assert "max_step_tokens" not in line, "the flag repeats the rule"


@pytest.mark.parametrize("command", ["eval", "serve"])
def test_a_planner_that_says_nothing_is_played_by_the_defaults_with_one_hint(run, command):
    planner, _, rules, shown = run(command, "tiny-qwen2")
    assert rules == Rules()
    assert planner.codec.template_kwargs == {}
    assert shown.count(f"tiny-qwen2 does {HINT}") == 1
    assert len([line for line in shown.splitlines() if POLICY_FILE in line]) == 1


def test_eval_and_serve_have_the_same_options_of_play():
    helps = [CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output for name in ("eval", "serve")]
    for option in ("--max-turns", "--delimiter", "--planner-decoding", "--template", "--engine", "--context"):
        lines = {line for text in helps for line in text.splitlines() if f"{option} " in line}
        assert len({" ".join(line.split()) for line in lines}) == 1, option


def test_a_planner_in_python_brings_its_rules(exported, letters):
    planner = Planner.from_pretrained(exported())
    assert planner.description.rules == TRAINED
    assert planner.codec.template_kwargs == TEMPLATES["planner"]
    assert Planner.from_pretrained(planner.source, template_kwargs={}).codec.template_kwargs == {}
    two, reasoner = rule_models(letters, lambda prompt, seed: "a step\n\n")
    trained = describe(rules=TrainedRules(Rules(2, 20, 20)))
    described = Planner("p", None, two.codec, two.engine, trained)
    assert len(asyncio.run(play("1 + 1?", described, reasoner)).turns) <= 2
    params = reasoner.engine.requests[0][1]
    assert params["max_tokens"] == 20


def damage(content: str | None = None, **changes):
    """Returns what writes a description of which something is wrong."""

    def write(folder):
        file = folder / POLICY_FILE
        values = json.loads(file.read_text())
        for key, value in changes.items():
            block = values["rules"] if key in values["rules"] or key == "playbook" else values
            block[key] = value
            if value is None:
                del block[key]
        file.write_text(json.dumps(values) if content is None else file.read_text()[: int(content)])

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage("90"), "its rsim_policy.json is damaged; export the policy again"),
        (damage("0"), "its rsim_policy.json is damaged"),
        (damage(format=2), "its rsim_policy.json has format 2; this version reads 1: update verl-rsim"),
        (damage(format=None), "has format None; this version reads 1"),
        (damage(role="judge"), "has role='judge', which is not planner, reasoner or shared"),
        (damage(rules=[]), "has a wrong rule, rules=[]: must be a block of rules"),
        (damage(max_turns=0), "has a wrong rule, max_turns=0: must be a whole number >= 1"),
        (damage(max_turns="6"), "has a wrong rule, max_turns='6': must be a whole number >= 1"),
        (damage(delimiter=""), "has a wrong rule, delimiter=''"),
        (damage(delimiter=3), "has a wrong rule, delimiter=3"),
        (damage(injection="none"), "has a wrong rule, injection='none': choose inline or chat"),
        (damage(planner_decoding="any"), "has a wrong rule, planner_decoding='any'"),
        (damage(merge_system="yes"), "has a wrong rule, merge_system='yes': must be true or false"),
        (damage(template_kwargs={}), "has a wrong rule, template_kwargs={}"),
        (damage(template_kwargs={"planner": 1, "reasoner": {}}), "template_kwargs.planner=1"),
        (damage(injection=None), "has a wrong rule, injection=None: is missing"),
        (damage(playbook="mine"), "playbook='mine': is a rule that this version does not know; update verl-rsim"),
    ],
)
def test_a_bad_description_is_refused_in_one_sentence(exported, run, change, message):
    folder = exported()
    change(folder)
    with pytest.raises(ConfigError) as refused:
        run("serve", folder)
    assert str(refused.value).startswith(f"planner='{folder}': ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_only_readers_read_may_change(exported):
    folder = exported()
    damage(training="later", new_key=1)(folder)
    assert find_description(folder, "planner").rules == TRAINED


def test_a_policy_of_the_other_role_is_refused(exported, run):
    reasoner, planner, shared = exported("reasoner"), exported(), exported("shared")
    for command in ("eval", "serve"):
        with pytest.raises(ConfigError, match=r"planner='.*': is a trained reasoner .*; give it as the reasoner"):
            run(command, reasoner)
        assert run(command, shared)[2] == TRAINED.rules
    with pytest.raises(ConfigError, match=r"reasoner='.*': is a trained planner"):
        Reasoner.from_pretrained(planner)


def test_a_matrix_is_played_by_the_rules_of_its_planners(exported, letters, tmp_path, monkeypatch):
    first, second = exported(), exported(name="again")
    other = exported(name="other", rules=TrainedRules(Rules(9, 40, 41, injection="chat", delimiter="##")))
    console = Console(file=io.StringIO(), width=80)
    described = {"one": describe(), "untrained": None}
    resolved = resolve_rules(described, {})
    assert (resolved.trained, resolved.note) == (TRAINED, "")
    with pytest.raises(
        ConfigError, match=r"rules.max_turns=\{'one': 3, 'two': 9\}: the planners were trained with diff"
    ):
        resolve_rules({"one": find_description(first, "planner"), "two": find_description(other, "planner")}, {})
    given = {"max_turns": 4, "planner_decoding": "free", "template_kwargs": {}}
    agreed = resolve_rules({"one": describe(), "two": find_description(other, "planner")}, given)
    assert agreed.rules.max_turns == 4

    block = {"planners": {"one": str(first), "two": str(second)}, "reasoners": {"r": "tiny-llama"}}
    matrix = parse_matrix({**block, "datasets": {"d": "arithmetic"}, "limit": 1, "controls": "none"})
    seen = []
    monkeypatch.setattr("verl_rsim.evaluation.transfer._Transfer", lambda matrix, *_: seen.append(matrix) or Nothing())
    assert asyncio.run(run_transfer(matrix, tmp_path / "out", console)) == {}
    assert seen[0].settings.rules == TRAINED.rules
    assert seen[0].reasoners["r"].template_kwargs == TEMPLATES["reasoner"]
    assert console.file.getvalue() == ""
    (second / POLICY_FILE).write_text("{")
    asyncio.run(run_transfer(matrix, tmp_path / "out", console))  # the other planner's rules are known
    (first / POLICY_FILE).write_text("{")
    with pytest.raises(RsimError, match="damaged"):
        asyncio.run(run_transfer(matrix, tmp_path / "out", console))


class Nothing:
    """A transfer without cells."""

    async def run(self):
        return {}
