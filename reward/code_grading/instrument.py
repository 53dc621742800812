"""Rewrites asserts so that each is counted, and refuses tests that cannot be judged.

A *test* here is one source of tests: an entry of MBPP's ``test_list``, or HumanEval's ``check`` function. Each of its
asserts, and each statement that calls ``assertEqual``, ``assert_allclose`` and the like, becomes a numbered assertion
that reports if it held; the statements after it run either way.

- A test with assertions passes if at least one is reached and all that are reached hold. If none is reached (a loop
  over an empty result, a handler of an exception that was not raised) the test fails, since it has shown nothing.
- A test without assertions that can fail in another way (``assert False`` where the solution must not get, ``raise``,
  a helper of the setup that asserts) passes if it runs to its end.
- An error outside an assertion fails the whole test, so that raising never earns more than a wrong result.

Some tests are refused, since any verdict on them could be false:

- tests that evaluate text or bytes as code, which may be the solution's;
- tests that fail only in a loop over what the solution returns, other than by an assert on it;
- tests whose assertions all stand in the ``else`` of a ``try``, where raising may be right or wrong;
- asserts on an argument alone after the call, since the solution gets a copy. An assert on both the result and the
  changed argument is not recognized.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verl_rsim.reward.code_grading.parsing import parse_source
from verl_rsim.reward.sandbox.guest_program import CALLBACK_PREFIX
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
"""Names and modules that run text or bytes as code."""


@dataclass(frozen=True, slots=True)
class InstrumentedTest:
    """One test with its assertions numbered.

    Attributes:
        source: rewritten source.
        weight: weight among all tests; 0 if the test cannot fail except by an error.
        assertions: number of its assertions.
    """

    source: str
    weight: int
    assertions: int


def instrument_tests(tests: list[ast.Module], setup: ast.Module, solution: set[str]) -> tuple[InstrumentedTest, ...]:
    """Instruments the tests of one task, in their order.

    Args:
        tests: parsed source of each test.
        setup: parsed source that runs before them.
        solution: names by which the tests call the solution.

    Raises:
        TruthError: the tests cannot be judged.
    """
    derived = _derived_names([setup, *tests], solution)
    _refuse_changed_arguments(tests, solution, derived)
    helpers: set[str] = set()
    for tree in (setup, *tests):
        helpers.update(_failing_functions(tree))
    instrumented = tuple(_instrument(tree, derived, helpers) for tree in tests)
    if not any(test.weight for test in instrumented):
        raise TruthError("ground truth has tests that cannot fail: assert what the solution returns")
    return instrumented


def _instrument(tree: ast.Module, derived: set[str], helpers: set[str]) -> InstrumentedTest:
    rewriter = _AssertionRewriter(derived, helpers)
    source = ast.unparse(ast.fix_missing_locations(rewriter.visit(tree)))
    if rewriter.assertions and rewriter.assertions == rewriter.assertions_in_else:
        raise TruthError("ground truth has asserts in the else of a try only: assert whether the solution should raise")
    if rewriter.failures_in_loops and not rewriter.assertions and not rewriter.other_failures:
        raise TruthError(
            "ground truth has tests that fail only in a loop over what the solution returns: assert its length first"
        )
    weight = rewriter.assertions
    if not weight and rewriter.other_failures:
        weight = 1
    return InstrumentedTest(source, weight, rewriter.assertions)


class _AssertionRewriter(ast.NodeTransformer):
    """Numbers the assertions of a test, and counts the other statements by which it can fail.

    ``assert True``, a placeholder in many datasets, is dropped: it checks nothing.

    Args:
        derived: names whose values come from the solution.
        helpers: functions that can fail when they are called.

    Attributes:
        assertions: assertions so far.
        assertions_in_else: those in the ``else`` of a ``try``.
        failures_in_loops: other statements that can fail, inside of loops over what the solution returns.
        other_failures: other statements that can fail, outside of such loops.
    """

    def __init__(self, derived: set[str], helpers: set[str]):
        self.assertions = self.assertions_in_else = 0
        self.other_failures = self.failures_in_loops = 0
        self._derived, self._helpers = derived, helpers
        self._loop_depth = self._else_depth = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        if not isinstance(node.test, ast.Constant):
            return self._add_assertion(node)
        if node.test.value:
            return ast.Pass()
        self._count_failure()
        return _reporting(node, -1)  # it can only fail, so it has no number among those that have to be reached

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self._count_failure()
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if _is_assertion(node):
            return self._add_assertion(node)
        if _callee(node.value) in self._helpers:
            self._count_failure()
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        return self._add_assertion(node) if _is_assertion(node) else self.generic_visit(node)

    def visit_For(self, node: ast.For) -> ast.AST:
        return self._visit_loop(node, node.iter)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._visit_loop(node, node.test)

    def visit_Try(self, node: ast.Try) -> ast.AST:
        else_body, node.orelse = node.orelse, []
        self.generic_visit(node)  # body and handlers; the else, emptied for the moment, is visited apart
        self._else_depth += 1
        node.orelse = [self.visit(statement) for statement in else_body]
        self._else_depth -= 1
        return node

    def _visit_loop(self, node: ast.AST, condition: ast.AST) -> ast.AST:
        depends_on_solution = bool(_names(condition) & self._derived)
        self._loop_depth += depends_on_solution
        self.generic_visit(node)
        self._loop_depth -= depends_on_solution
        return node

    def _count_failure(self) -> None:
        if self._loop_depth:
            self.failures_in_loops += 1
        else:
            self.other_failures += 1

    def _add_assertion(self, node: ast.stmt) -> ast.AST:
        self.assertions += 1
        if self._else_depth:
            self.assertions_in_else += 1
        return _reporting(node, self.assertions)


def _reporting(statement: ast.stmt, number: int) -> ast.Try:
    """Wraps a statement so that it reports if it held; an error in it is reported and does not end the test."""
    # BaseException: an assertion that dies with the solution's process, or exits, must fail like any other.
    wrapper = parse_source(
        f"try:\n {CALLBACK_PREFIX}mark__ = {CALLBACK_PREFIX}begin__()\n"
        f"except BaseException as {CALLBACK_PREFIX}error__:\n"
        f" {CALLBACK_PREFIX}fail__({number}, {CALLBACK_PREFIX}error__)\n"
        f"else:\n {CALLBACK_PREFIX}ok__({number}, {CALLBACK_PREFIX}mark__)"
    ).body[0]
    assert isinstance(wrapper, ast.Try)
    wrapper.body.append(statement)
    return wrapper


def refuse_evaluation(*trees: ast.Module) -> None:
    """Checks that tests evaluate no text or bytes as code.

    What they evaluate may come from the solution, which would then run beside the verdict.

    Raises:
        TruthError: a test uses a function or module that evaluates.
    """
    for tree in trees:
        evaluators: set[str] = set()
        for node in ast.walk(tree):
            evaluators.update(_evaluators(node))
        if evaluators:
            raise TruthError(
                f"ground truth has a test that uses {sorted(evaluators)}: write what it should compare instead"
            )


def _evaluators(node: ast.AST) -> Iterator[str]:
    """Yields the names in one node that evaluate text or bytes."""
    if isinstance(node, ast.Name):
        yield from {node.id} & EVALUATORS
    elif isinstance(node, ast.Attribute):
        yield from {node.attr} & EVALUATORS - {"compile"}  # re.compile is fine; builtins.compile needs a refused import
    elif isinstance(node, ast.Import):
        yield from {alias.name.split(".")[0] for alias in node.names} & MODULES
    elif isinstance(node, ast.ImportFrom):
        yield from {(node.module or "").split(".")[0]} & MODULES
        yield from {alias.name for alias in node.names} & EVALUATORS - {"compile"}
    elif isinstance(node, ast.Call) and _callee(node) == "getattr" and len(node.args) > 1:
        name = node.args[1]
        # A computed name may spell any evaluator, such as 'ev' + 'al'.
        if not isinstance(name, ast.Constant) or name.value in EVALUATORS:
            yield "getattr"


def _refuse_changed_arguments(tests: list[ast.Module], solution: set[str], derived: set[str]) -> None:
    """Raises TruthError for an assert on ``a`` alone after ``f(a)``, since the solution got a copy of ``a``."""
    arguments: set[str] = set()
    for tree in tests:
        nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Call, ast.Expr, ast.Assert))]
        # In the order of the source, which ast.walk does not follow: only asserts after the call count.
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
            names = _names(node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in solution:
                arguments |= names - derived
            elif _is_assertion(node) and not names & derived and names & arguments:
                raise TruthError(
                    f"ground truth has a test of what a call does to its argument {sorted(names & arguments)}, "
                    "which is passed as a copy: test what the function returns"
                )


def _derived_names(trees: list[ast.Module], solution: set[str]) -> set[str]:
    """Returns the names whose values come from the solution, as far as plain assignments, loops and calls show."""
    nodes: list[ast.AST] = []
    for tree in trees:
        nodes.extend(ast.walk(tree))
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    derived, size_before = set(solution), 0
    # To a fixed point: a name may be derived through one that is only found to be derived further down.
    while len(derived) > size_before:
        size_before = len(derived)
        for node in nodes:
            derived |= _names_derived_in(node, derived, functions)
    return derived


def _names_derived_in(node: ast.AST, derived: set[str], functions: dict[str, ast.FunctionDef]) -> set[str]:
    """Returns the names to which one node passes a value that comes from the solution."""
    if isinstance(node, ast.FunctionDef):
        return {node.name} if _mention(node.body, derived) else set()
    if isinstance(node, ast.Call) and _callee(node) in functions:
        if not _mention((*node.args, *node.keywords), derived):
            return set()
        parameters = functions[_callee(node)].args
        return {parameter.arg for parameter in ast.walk(parameters) if isinstance(parameter, ast.arg)}
    value = getattr(node, "iter", None) or getattr(node, "value", None)
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    names: set[str] = set()
    if isinstance(value, ast.AST) and _names(value) & derived:
        for target in targets:
            if isinstance(target, ast.AST):
                names |= _names(target)
    return names


def _mention(nodes: Sequence[ast.AST], names: set[str]) -> bool:
    """Returns True if one of the nodes mentions one of the names."""
    return any(_names(node) & names for node in nodes)


def _failing_functions(tree: ast.Module) -> Iterator[str]:
    """Yields the functions that can fail when they are called: those with an assert or a raise, and imported ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if any(isinstance(part, ast.Raise) or _is_assertion(part) for part in ast.walk(node)):
                yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def _names(node: ast.AST) -> set[str]:
    """Returns the names of variables and functions that a node mentions."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _callee(node: ast.AST) -> str:
    """Returns the name of the function or method that a node calls, "" if it is no such call."""
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Name):
        return called.id
    return called.attr if isinstance(called, ast.Attribute) else ""


def _is_assertion(node: ast.AST) -> bool:
    """Returns True for an assert, and for a call or ``with`` statement that is named like one."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        return any(_callee(call).startswith("assert") or _callee(call) == "raises" for call in calls)
    if isinstance(node, ast.Expr):
        return _callee(node.value).lstrip("_").lower().startswith("assert")
    return isinstance(node, ast.Assert)
