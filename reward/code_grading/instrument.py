"""Tests of functions made countable, and the refusal of tests that could not be judged.

Each assert of a unit (one source of tests) becomes a numbered site that reports whether it held, and the ones after it
run whatever it says. So does a statement that calls ``assertEqual``, ``assert_allclose`` and the like.

- A unit with sites passes if it comes to one and all it comes to hold. If it comes to none (a loop over an empty
  result, a handler of an exception that was not raised) that is wrong: nothing was shown.
- A unit without a site that can fail another way (``assert False`` where the solution must not get, ``raise``, a helper
  of the setup that asserts) passes by running to its end.
- An error outside a site fails all of its unit, so that raising never earns more than a wrong result.

Refused, since any verdict could be false: tests that evaluate text or bytes, for those may be the solution's; units
that fail only in a loop over what the solution returns, other than by an assert on it; units whose every site is the
``else`` of a ``try``, where raising may be right or wrong; asserts on an argument alone after the call, for the
solution gets a copy. An assert on both the result and the changed argument is not seen to be one of these.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from verl_rsim.reward.code_grading.parsing import parse_source
from verl_rsim.reward.sandbox.guest_program import HIDDEN
from verl_rsim.reward.verdict import TruthError

_EVALUATORS = """
    eval exec execfile compile __import__ __builtins__ __globals__ globals import_module exec_module load_module
    run_path run_module runsource runcode runctx runeval sympify parse_expr lambdify get_type_hints read_pickle
    unsafe_load unsafe_load_all
"""
_MODULES = """
    builtins pickle cPickle _pickle cloudpickle dill joblib jsonpickle marshal shelve importlib _imp imp runpy code
    codeop pkgutil zipimport timeit trace profile cProfile pdb bdb doctest ctypes subprocess multiprocessing sympy
    numexpr asteval yaml
"""
EVALUATORS, MODULES = frozenset(_EVALUATORS.split()), frozenset(_MODULES.split())
"""What runs text or bytes that it is given as code."""


@dataclass(frozen=True, slots=True)
class InstrumentedUnit:
    """One source of tests.

    Attributes:
        source: with its sites numbered.
        weight: what it counts among all units; 0 if it cannot fail but by an error.
        sites: how many it has.
    """

    source: str
    weight: int
    sites: int


def refuse_evaluation(*trees: ast.Module) -> None:
    """Raise TruthError for tests that may evaluate what the solution returned, and so run it beside the verdict."""
    for tree in trees:
        if found := sorted({name for node in ast.walk(tree) for name in _evaluators(node)}):
            raise TruthError(f"ground truth has a test that uses {found}: write what it should compare instead")


def _evaluators(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield from {node.id} & EVALUATORS
    elif isinstance(node, ast.Attribute):
        yield from {node.attr} & EVALUATORS - {"compile"}  # re's; that of builtins needs an import
    elif isinstance(node, ast.Import):
        yield from {alias.name.split(".")[0] for alias in node.names} & MODULES
    elif isinstance(node, ast.ImportFrom):
        yield from {(node.module or "").split(".")[0]} & MODULES
        yield from {alias.name for alias in node.names} & EVALUATORS - {"compile"}
    elif isinstance(node, ast.Call) and _callee(node) == "getattr" and len(node.args) > 1:
        name = node.args[1]
        if not isinstance(name, ast.Constant) or name.value in EVALUATORS:
            yield "getattr"


def _refuse_changed_arguments(trees: list[ast.Module], solution: set[str], derived: set[str]) -> None:
    """Raise TruthError for an assert on ``a`` alone after ``f(a)``: the solution got a copy of it."""
    given: set[str] = set()
    for tree in trees:
        nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Call, ast.Expr, ast.Assert))]
        for node in sorted(nodes, key=lambda each: (each.lineno, each.col_offset)):
            names = _names(node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in solution:
                given |= names - derived
            elif _asserts(node) and not names & derived and (found := sorted(names & given)):
                raise TruthError(
                    f"ground truth has a test of what a call does to its argument {found}, which is passed as a copy: "
                    "test what the function returns"
                )


def units(trees: list[ast.Module], setup: ast.Module, solution: set[str]) -> tuple[InstrumentedUnit, ...]:
    """The units of some tests, in their order.

    Args:
        trees: one of each unit.
        setup: what runs before.
        solution: the names by which the tests call the solution.

    Raises:
        TruthError: they can not be judged.
    """
    derived = _derived([setup, *trees], solution)
    _refuse_changed_arguments(trees, solution, derived)
    helpers = {name for tree in (setup, *trees) for name in _helpers(tree)}
    found = tuple(_unit(tree, derived, helpers) for tree in trees)
    if not any(unit.weight for unit in found):
        raise TruthError("ground truth has tests that cannot fail: assert what the solution returns")
    return found


def _unit(tree: ast.Module, derived: set[str], helpers: set[str]) -> InstrumentedUnit:
    counting = _Counting(derived, helpers)
    source = ast.unparse(ast.fix_missing_locations(counting.visit(tree)))
    if counting.sites and counting.sites == counting.otherwise:
        raise TruthError("ground truth has asserts in the else of a try only: assert whether the solution should raise")
    if counting.looped and not counting.sites and not counting.guards:
        raise TruthError(
            "ground truth has tests that fail only in a loop over what the solution returns: assert its length first"
        )
    return InstrumentedUnit(source, counting.sites or int(counting.guards > 0), counting.sites)


def _derived(trees: list[ast.Module], solution: set[str]) -> set[str]:
    """Names whose values come from the solution, as far as plain assignments, loops and calls show."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    derived, before = set(solution), 0
    while len(derived) > before:
        before = len(derived)
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and any(_names(part) & derived for part in node.body):
                derived.add(node.name)
            elif isinstance(node, ast.Call) and (called := functions.get(_callee(node))):
                if any(_names(part) & derived for part in (*node.args, *node.keywords)):
                    derived |= {each.arg for each in ast.walk(called.args) if isinstance(each, ast.arg)}
            else:
                value = getattr(node, "iter", None) or getattr(node, "value", None)
                targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
                if isinstance(value, ast.AST) and _names(value) & derived:
                    derived.update(*(_names(target) for target in targets if isinstance(target, ast.AST)))
    return derived


def _helpers(tree: ast.Module) -> Iterator[str]:
    """Functions that can fail when they are called: with an assert or a raise, or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if any(isinstance(part, ast.Raise) or _asserts(part) for part in ast.walk(node)):
                yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _callee(node: ast.AST) -> str:
    called = node.func if isinstance(node, ast.Call) else None
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""


def _asserts(node: ast.AST) -> bool:
    """Whether a statement is an assert, or a call that is named like one."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        return any(_callee(call).startswith("assert") or _callee(call) == "raises" for call in calls)
    named = isinstance(node, ast.Expr) and _callee(node.value).lstrip("_").lower().startswith("assert")
    return named or isinstance(node, ast.Assert)


class _Counting(ast.NodeTransformer):
    """Rewrites a unit and counts its sites, those in an ``else`` of a ``try``, and the other ways it can fail.

    ``assert True``, a placeholder in many data sets, goes: it is no check.
    """

    def __init__(self, derived: set[str], helpers: set[str]):
        self.sites = self.otherwise = self.guards = self.looped = 0
        self._derived, self._helpers = derived, helpers
        self._loops = self._elses = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        if not isinstance(node.test, ast.Constant):
            return self._site(node)
        return ast.Pass() if node.test.value else self._reporting(node, self._guard())

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self._guard()
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if _asserts(node):
            return self._site(node)
        if _callee(node.value) in self._helpers:
            self._guard()
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        return self._site(node) if _asserts(node) else self.generic_visit(node)

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._loop(node, node.iter)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._loop(node, node.test)

    def visit_Try(self, node: ast.Try) -> ast.AST:
        otherwise, node.orelse = node.orelse, []
        self.generic_visit(node)
        self._elses += 1
        node.orelse = [self.visit(each) for each in otherwise]
        self._elses -= 1
        return node

    def _loop(self, node: ast.AST, over: ast.AST) -> ast.AST:
        inside = bool(_names(over) & self._derived)
        self._loops += inside
        self.generic_visit(node)
        self._loops -= inside
        return node

    def _guard(self) -> int:
        self.guards += not self._loops
        self.looped += bool(self._loops)
        return -1

    def _site(self, node: ast.stmt) -> ast.AST:
        self.sites += 1
        self.otherwise += bool(self._elses)
        return self._reporting(node, self.sites)

    @staticmethod
    def _reporting(node: ast.stmt, site: int) -> ast.AST:
        body = parse_source(
            f"try:\n {HIDDEN}mark__ = {HIDDEN}begin__()\nexcept BaseException as {HIDDEN}error__:\n"
            f" {HIDDEN}fail__({site}, {HIDDEN}error__)\nelse:\n {HIDDEN}ok__({site}, {HIDDEN}mark__)"
        ).body[0]
        assert isinstance(body, ast.Try)
        body.body.append(node)
        return body
