"""The ground truth of a coding task: a JSON object with the tests, parsed and checked once.

- HumanEval: ``{"kind": "humaneval", "entry_point": "f", "test": "def check(candidate): ...", "prompt": "def f ..."}``.
  The prompt (optional) is what the answer may continue, and holds what the tests share with it.
- MBPP: ``{"kind": "asserts", "test_list": ["assert f(1) == 2", ...]}``; optional: ``test_setup_code``, ``test_imports``
  (a list), and ``entry_point`` where the function is named like a builtin.
- stdin and stdout: ``{"kind": "stdio", "inputs": ["1 2\\n", ...], "outputs": ["3\\n", ...]}``.
- function calls: ``{"kind": "calls", "entry_point": "f", "inputs": [[1, 2], ...], "outputs": [3, ...]}``.
- PRIME's, as in verl: ``{"inputs": [...], "outputs": [...]}`` is stdio; with ``"fn_name": "f"`` it is calls, where an
  input is a list or a text of one JSON argument a line, an output a value or its JSON, maybe in a list of its own.

Tests are trusted to be right, not to be harmless: they are parsed here and run in a sandbox of their own. Not
supported, since arguments and results cross between two processes as plain data: tests that pass functions or objects
of the solution's own classes, and tests of a change made to an argument in place. What a test shows, and which are
refused: :mod:`verl_rsim.reward.code_grading.instrument`.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from verl_rsim.reward.code_grading.instrument import InstrumentedUnit, refuse_evaluation, units
from verl_rsim.reward.code_grading.parsing import parse_source
from verl_rsim.reward.sandbox.guest_program import dump
from verl_rsim.reward.verdict import TruthError


@dataclass(frozen=True, slots=True)
class StdioCase:
    """What a program reads, and what it should print."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True)
class StdioTests:
    """Tests of a program: each case is a run of its own."""

    cases: tuple[StdioCase, ...]


@dataclass(frozen=True, slots=True)
class FunctionTests:
    """Tests of functions.

    Attributes:
        names: what the tests call a function, to the name it has in the solution.
        prompt: source that the answer may continue or lean on; "" for none.
        setup: source the tests lean on.
        units: sources with the asserts, made countable.
        cases: arguments, and the results any of which will do.
    """

    names: Mapping[str, str]
    prompt: str = ""
    setup: str = ""
    units: tuple[InstrumentedUnit, ...] = ()
    cases: tuple[tuple[list, list], ...] = field(default=())


@lru_cache(maxsize=256)
def parse_truth(truth: str) -> StdioTests | FunctionTests:
    """The tests in a row's ground truth.

    Raises:
        TruthError: there are none that can be used; the message says what to change.
    """
    try:
        row = json.loads(truth)
    except (ValueError, RecursionError) as error:
        raise TruthError(f"ground truth is not JSON ({error}): write the tests as one JSON object") from None
    if not isinstance(row, dict):
        raise TruthError(f"ground truth is a {type(row).__name__}: write the tests as one JSON object")
    kind = row.get("kind") or ("calls" if row.get("fn_name") else "stdio" if "inputs" in row else None)
    parsers: dict[object, Callable[[dict], StdioTests | FunctionTests]] = {
        "humaneval": _humaneval,
        "asserts": _asserts,
        "stdio": _stdio,
        "calls": _calls,
    }
    if kind not in parsers:
        raise TruthError(f"ground truth has kind={row.get('kind')!r}: write one of humaneval, asserts, stdio, calls")
    return parsers[kind](row)


def _field(row: dict, key: str, kind: type, default: Any = None) -> Any:
    value = row.get(key, default)
    if not isinstance(value, kind) or (default is None and not value):
        raise TruthError(f"ground truth has {key}={str(value)[:80]!r}: write a non-empty {kind.__name__}")
    return value


def _texts(row: dict, key: str, default: list | None = None) -> list[str]:
    values = _field(row, key, list, default)
    if not all(isinstance(value, str) for value in values):
        raise TruthError(f"ground truth has a {key} that is no list of strings: write each as a string")
    return values


def _name(row: dict, key: str) -> str:
    name = _field(row, key, str)
    if not name.isidentifier():
        raise TruthError(f"ground truth has {key}={name!r}: write the name of the function")
    return name


def _parse(source: str, what: str) -> ast.Module:
    try:
        return parse_source(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TruthError(f"ground truth has a {what} that is not Python ({error}): mend it") from None


def _humaneval(row: dict) -> FunctionTests:
    entry, test = _name(row, "entry_point"), _parse(_field(row, "test", str), "test")
    prompt = _field(row, "prompt", str, "").rstrip()
    if prompt and prompt.endswith(":"):
        prompt += "\n    pass"
    start = _parse(prompt, "prompt")
    refuse_evaluation(start, test)
    given = _bound(start) | _bound(test) | {entry, "candidate"}
    if "check" not in _bound(test):
        raise TruthError("ground truth has a test without check: define check(candidate)")
    if "*" not in given and (missing := _free(test) - given):
        raise TruthError(f"ground truth has a test that uses {sorted(missing)}: define or import it in test or prompt")
    own = {entry, "candidate", *_checked(test)}
    (unit,) = units([test], start, own)
    called = replace(unit, source=f"{unit.source}\ncheck(candidate)")
    return FunctionTests({entry: entry, "candidate": entry}, prompt=prompt, setup=prompt, units=(called,))


def _checked(test: ast.Module) -> Iterator[str]:
    """What ``check`` itself calls the function."""
    for node in ast.walk(test):
        if isinstance(node, ast.FunctionDef) and node.name == "check":
            yield from (each.arg for each in node.args.args[:1])


def _asserts(row: dict) -> FunctionTests:
    tests = [_parse(test, "test_list") for test in _texts(row, "test_list")]
    setup = "\n".join([*_texts(row, "test_imports", []), _field(row, "test_setup_code", str, "")])
    start = _parse(setup, "test_setup_code")
    bound = _bound(start).union(*map(_bound, tests))
    free = set().union(*map(_free, tests)) - bound
    modules = {name for name in free & sys.stdlib_module_names if any(_is_module(test, name) for test in tests)}
    refuse_evaluation(_parse("\n".join(f"import {name}" for name in modules), ""), start, *tests)
    asked = {_name(row, "entry_point")} if "entry_point" in row else free - modules
    if not asked or ("*" in bound and "entry_point" not in row):
        raise TruthError("ground truth has a test_list that does not tell the solution's function: add entry_point")
    setup = "\n".join([*(f"import {name}" for name in sorted(modules)), setup])
    return FunctionTests({name: name for name in asked}, setup=setup, units=units(tests, start, asked))


def _stdio(row: dict) -> StdioTests:
    inputs, outputs = _field(row, "inputs", list), _field(row, "outputs", list)
    _same_length(inputs, outputs)
    cases = []
    for pair in zip(inputs, outputs, strict=True):
        stdin, expected = ("\n".join(part) if isinstance(part, list) else part for part in pair)
        if not isinstance(stdin, str) or not isinstance(expected, str):
            raise TruthError("ground truth has inputs or outputs that are no text: write what is read and printed")
        cases.append(StdioCase(stdin, expected))
    return StdioTests(tuple(cases))


def _calls(row: dict) -> FunctionTests:
    prime = "fn_name" in row
    entry = _name(row, "fn_name" if prime else "entry_point")
    inputs, outputs = _field(row, "inputs", list), _field(row, "outputs", list)
    _same_length(inputs, outputs)
    if prime:
        inputs = [[_json(line) for line in each.split("\n")] if isinstance(each, str) else each for each in inputs]
        outputs = [_json(each) if isinstance(each, str) else each for each in outputs]
    if not all(isinstance(each, list) for each in inputs):
        raise TruthError("ground truth has inputs that are no lists: write the arguments of each call as a list")
    accepted = [each if prime and isinstance(each, list) and len(each) == 1 else [] for each in outputs]
    cases = tuple((args, [output, *also]) for args, output, also in zip(inputs, outputs, accepted, strict=True))
    try:
        dump(cases)
    except ValueError as error:
        raise TruthError(f"ground truth has {error}: write flatter inputs and outputs") from None
    return FunctionTests({"candidate": entry}, cases=cases)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TruthError(f"ground truth has {text[:80]!r} for an argument or result: write JSON ({error})") from None


def _same_length(inputs: list, outputs: list) -> None:
    if len(inputs) != len(outputs):
        raise TruthError(f"ground truth has {len(inputs)} inputs, {len(outputs)} outputs: write one output an input")


def _bound(tree: ast.Module) -> set[str]:
    """Names that a source gives a meaning, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
    return names


def _free(tree: ast.Module) -> set[str]:
    """Names that a source uses without giving them a meaning; none that a builtin has."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return used - _bound(tree) - set(dir(builtins)) - {"__name__"}


def _is_module(tree: ast.Module, name: str) -> bool:
    """Whether a name is used as in ``math.pi``."""
    owners = (node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return any(isinstance(owner, ast.Name) and owner.id == name for owner in owners)
