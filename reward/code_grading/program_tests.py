"""Parses the ground truth of a coding task: a JSON object with its tests.

- HumanEval: ``{"kind": "humaneval", "entry_point": "f", "test": "def check(candidate): ...", "prompt": "def f ..."}``.
  The prompt (optional) is source that the answer may continue; its helpers are there for the tests, too.
- MBPP: ``{"kind": "asserts", "test_list": ["assert f(1) == 2", ...]}``; optional: ``test_setup_code``, ``test_imports``
  (a list), and ``entry_point`` where the function is named like a builtin.
- stdin and stdout: ``{"kind": "stdio", "inputs": ["1 2\\n", ...], "outputs": ["3\\n", ...]}``.
- function calls: ``{"kind": "calls", "entry_point": "f", "inputs": [[1, 2], ...], "outputs": [3, ...]}``.
- PRIME, as in verl: ``{"inputs": [...], "outputs": [...]}`` is stdio. With ``"fn_name": "f"`` it is calls: an
  input is a list, or a text with one JSON argument per line; an output is a value or its JSON, perhaps in a list.

Tests are trusted to be right, not to be harmless: they are parsed here and run in a sandbox of their own. Not
supported, since arguments and results cross between two processes as plain data: tests that pass functions or objects
of the solution's own classes, and tests of a change made to an argument in place. How tests count, and which are
refused, is described in :mod:`verl_rsim.reward.code_grading.instrument`.
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

from verl_rsim.reward.code_grading.instrument import InstrumentedTest, instrument_tests, refuse_evaluation
from verl_rsim.reward.code_grading.parsing import parse_source
from verl_rsim.reward.sandbox.guest_program import dump
from verl_rsim.reward.verdict import TruthError


@dataclass(frozen=True, slots=True)
class StdioCase:
    """One run of a program: the stdin it reads and the output expected from it."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True)
class StdioTests:
    """Tests of a program that reads stdin; each case is a run of its own."""

    cases: tuple[StdioCase, ...]


@dataclass(frozen=True, slots=True)
class FunctionTests:
    """Tests of functions.

    Attributes:
        names: name under which the tests call a function -> its name in the solution.
        prompt: source that the answer may continue or use; "" for none.
        setup: source that runs before the tests.
        tests: tests with numbered assertions.
        cases: pairs of arguments and the list of accepted results.
    """

    names: Mapping[str, str]
    prompt: str = ""
    setup: str = ""
    tests: tuple[InstrumentedTest, ...] = ()
    cases: tuple[tuple[list, list], ...] = field(default=())


@lru_cache(maxsize=256)
def parse_truth(truth: str) -> StdioTests | FunctionTests:
    """Parses and checks the tests in a row's ground truth.

    Raises:
        TruthError: the tests cannot be used; the message says what to change.
    """
    try:
        row = json.loads(truth)
    except (ValueError, RecursionError) as error:
        raise TruthError(f"ground truth is not JSON ({error}): write the tests as one JSON object") from None
    if not isinstance(row, dict):
        raise TruthError(f"ground truth is a {type(row).__name__}: write the tests as one JSON object")
    kind = row.get("kind")
    if not kind and row.get("fn_name"):
        kind = "calls"
    elif not kind and "inputs" in row:
        kind = "stdio"
    parsers: dict[object, Callable[[dict], StdioTests | FunctionTests]] = {
        "humaneval": _parse_humaneval,
        "asserts": _parse_asserts,
        "stdio": _parse_stdio,
        "calls": _parse_calls,
    }
    if kind not in parsers:
        raise TruthError(f"ground truth has kind={row.get('kind')!r}: write one of humaneval, asserts, stdio, calls")
    return parsers[kind](row)


def _field(row: dict, key: str, kind: type, default: Any = None) -> Any:
    value = row.get(key, default)
    if not isinstance(value, kind) or (default is None and not value):
        raise TruthError(f"ground truth has {key}={str(value)[:80]!r}: write a non-empty {kind.__name__}")
    return value


def _strings(row: dict, key: str, default: list | None = None) -> list[str]:
    values = _field(row, key, list, default)
    if not all(isinstance(value, str) for value in values):
        raise TruthError(f"ground truth has a {key} that is no list of strings: write each as a string")
    return values


def _identifier(row: dict, key: str) -> str:
    name = _field(row, key, str)
    if not name.isidentifier():
        raise TruthError(f"ground truth has {key}={name!r}: write the name of the function")
    return name


def _parse_python(source: str, what: str) -> ast.Module:
    try:
        return parse_source(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TruthError(f"ground truth has a {what} that is not Python ({error}): correct it") from None


def _parse_humaneval(row: dict) -> FunctionTests:
    entry, test = _identifier(row, "entry_point"), _parse_python(_field(row, "test", str), "test")
    prompt = _field(row, "prompt", str, "").rstrip()
    if prompt and prompt.endswith(":"):
        prompt += "\n    pass"  # so that a prompt that ends with the function's head is Python by itself
    setup = _parse_python(prompt, "prompt")
    refuse_evaluation(setup, test)
    defined = _bound_names(setup) | _bound_names(test) | {entry, "candidate"}
    if "check" not in _bound_names(test):
        raise TruthError("ground truth has a test without check: define check(candidate)")
    missing = _free_names(test) - defined
    if missing and "*" not in defined:  # "from x import *" may define anything
        raise TruthError(f"ground truth has a test that uses {sorted(missing)}: define or import it in test or prompt")
    solution = {entry, "candidate", *_check_parameters(test)}
    (instrumented,) = instrument_tests([test], setup, solution)
    called = replace(instrumented, source=f"{instrumented.source}\ncheck(candidate)")
    return FunctionTests({entry: entry, "candidate": entry}, prompt=prompt, setup=prompt, tests=(called,))


def _check_parameters(test: ast.Module) -> Iterator[str]:
    """Yields the name that ``check`` gives to the function it is called with."""
    for node in ast.walk(test):
        if isinstance(node, ast.FunctionDef) and node.name == "check":
            yield from (each.arg for each in node.args.args[:1])


def _parse_asserts(row: dict) -> FunctionTests:
    tests = [_parse_python(test, "test_list") for test in _strings(row, "test_list")]
    setup = "\n".join([*_strings(row, "test_imports", []), _field(row, "test_setup_code", str, "")])
    setup_tree = _parse_python(setup, "test_setup_code")
    bound = _bound_names(setup_tree).union(*map(_bound_names, tests))
    free = set().union(*map(_free_names, tests)) - bound
    # MBPP's tests use modules such as math without importing them, so these imports are added.
    modules = {name for name in free & sys.stdlib_module_names if any(_is_module(test, name) for test in tests)}
    imports = [f"import {name}" for name in sorted(modules)]
    refuse_evaluation(_parse_python("\n".join(imports), ""), setup_tree, *tests)
    functions = {_identifier(row, "entry_point")} if "entry_point" in row else free - modules
    if not functions or ("*" in bound and "entry_point" not in row):
        raise TruthError("ground truth has a test_list that does not tell the solution's function: add entry_point")
    instrumented = instrument_tests(tests, setup_tree, functions)
    return FunctionTests({name: name for name in functions}, setup="\n".join([*imports, setup]), tests=instrumented)


def _parse_stdio(row: dict) -> StdioTests:
    inputs, outputs = _field(row, "inputs", list), _field(row, "outputs", list)
    _same_length(inputs, outputs)
    cases = []
    for pair in zip(inputs, outputs, strict=True):
        stdin, expected = ("\n".join(part) if isinstance(part, list) else part for part in pair)
        if not isinstance(stdin, str) or not isinstance(expected, str):
            raise TruthError("ground truth has inputs or outputs that are no text: write what is read and printed")
        cases.append(StdioCase(stdin, expected))
    return StdioTests(tuple(cases))


def _parse_calls(row: dict) -> FunctionTests:
    prime = "fn_name" in row
    entry = _identifier(row, "fn_name" if prime else "entry_point")
    inputs, outputs = _field(row, "inputs", list), _field(row, "outputs", list)
    _same_length(inputs, outputs)
    if prime:
        inputs = [_prime_arguments(arguments) for arguments in inputs]
        outputs = [_parse_json(output) if isinstance(output, str) else output for output in outputs]
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise TruthError("ground truth has inputs that are no lists: write the arguments of each call as a list")
    cases = []
    for arguments, output in zip(inputs, outputs, strict=True):
        # PRIME wraps some results in a list of their own, and nothing tells which: both readings are accepted.
        wrapped = prime and isinstance(output, list) and len(output) == 1
        cases.append((arguments, [output, *output] if wrapped else [output]))
    try:
        dump(cases)
    except ValueError as error:
        raise TruthError(f"ground truth has {error}: write flatter inputs and outputs") from None
    return FunctionTests({"candidate": entry}, cases=tuple(cases))


def _prime_arguments(arguments: object) -> object:
    if not isinstance(arguments, str):
        return arguments
    return [_parse_json(line) for line in arguments.split("\n")]


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TruthError(f"ground truth has {text[:80]!r} for an argument or result: write JSON ({error})") from None


def _same_length(inputs: list, outputs: list) -> None:
    if len(inputs) != len(outputs):
        raise TruthError(f"ground truth has {len(inputs)} inputs, {len(outputs)} outputs: write one output an input")


def _bound_names(tree: ast.Module) -> set[str]:
    """Returns the names that a source defines, imports or assigns anywhere."""
    names: set[str] = set()
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


def _free_names(tree: ast.Module) -> set[str]:
    """Returns the names that a source uses and does not define, without builtins."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return used - _bound_names(tree) - set(dir(builtins)) - {"__name__"}


def _is_module(tree: ast.Module, name: str) -> bool:
    """Returns True if a source uses a name like a module, as in ``math.pi``."""
    owners = (node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return any(isinstance(owner, ast.Name) and owner.id == name for owner in owners)
