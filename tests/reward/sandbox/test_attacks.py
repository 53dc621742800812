"""No attack passes, lasts, leaves a process or spoils what comes next; the attacks are in data/code_attacks.yaml."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
import yaml
from support.paths import FIXTURES, ROOT

from verl_rsim.reward.code_grading.scorer import CodeScorer
from verl_rsim.reward.sandbox.base import SandboxLimits
from verl_rsim.reward.sandbox.bubblewrap import seccomp_filter
from verl_rsim.reward.sandbox.create import create_sandbox

pytestmark = pytest.mark.sandbox

ATTACKS = yaml.safe_load((FIXTURES / "code_attacks.yaml").read_text())
SECONDS = 2.0
LOADED_SECONDS = 8.0
"""What a busy machine may add to a grading; what hangs takes longer, for nothing else ends it."""
LIMITS = SandboxLimits(wall_seconds=SECONDS, memory_bytes=512 << 20, file_bytes=(64 << 20) + 4096 * os.getpid())
MARK = str(LIMITS.file_bytes)
"""On the command lines of this test's sandboxes, and no others'."""
CALLS = json.dumps({"kind": "asserts", "test_list": [f"assert f({x}) == {7919 * x + 13}" for x in (3, 4, 17)]})
LOOP = json.dumps({"kind": "asserts", "test_list": ["assert all(map(lambda x: f(x) == 7919 * x + 13, [3, 4, 17]))"]})
PROGRAM = json.dumps({"kind": "stdio", "inputs": ["3\n", "4\n"], "outputs": ["23770\n", "31689\n"]})
RIGHT = "def f(x):\n    return 7919 * x + 13\n"
ASK_HOLE = "\ndef f(x):\n    return 7919 * x + 13 if hole(x) else 0\n"


@pytest.fixture(scope="module")
def scorer() -> Iterator[CodeScorer]:
    scorer = CodeScorer(create_sandbox("bubblewrap", LIMITS))
    yield scorer
    scorer.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the attacks reach for: listeners, a file anyone may read, a secret in the environment."""
    folder = tmp_path_factory.mktemp("outside")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    file = folder / "file"
    file.write_text("secret")
    file.chmod(0o666)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = tcp.getsockname()[1]
        for kind, address in (("", f"{file}.socket"), ("abstract", f"\0rsim-attack-{port}")):
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(address)
            unix.listen()
            if not kind:
                os.chmod(address, 0o666)
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("RSIM_SECRET", "x")
        yield {"$PORT": str(port), "$FILE": str(file), "$REPO": str(ROOT)}


def grade(scorer: CodeScorer, code: str, truth: str, outside: dict[str, str]):
    for name, value in outside.items():
        code = code.replace(name, value)
    return scorer.score(f"```python\n{code}{ASK_HOLE if 'def hole' in code else ''}```", truth)


def sandboxes_left() -> list[int]:
    """The first processes of this test's sandboxes, wherever they have got to; nothing inside outlives its first."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if MARK in (process.info["cmdline"] or ())]


def children() -> set[int]:
    """Every process that descends from this one."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["name"])
def test_attack_gains_nothing(attack: dict, scorer: CodeScorer, outside: dict[str, str]):
    others = children()  # of tests before this one
    started = time.monotonic()
    verdict = grade(scorer, attack["code"], PROGRAM if attack.get("program") else CALLS, outside)
    took = time.monotonic() - started
    assert verdict.accuracy == 0.0, verdict
    assert verdict.reason not in ("right", "no_answer"), verdict
    assert took < SECONDS + LOADED_SECONDS, f"took {took:.2f} s"
    assert not sandboxes_left()
    assert not children() - others
    assert scorer.score(RIGHT, CALLS).reason == "right"


def test_table_is_large_and_asks_fairly(scorer: CodeScorer, outside: dict[str, str]):
    """An attack that asks whether a wall holds would pass if it did not."""
    assert len(ATTACKS) >= 40
    assert grade(scorer, "def hole(x): return True\n", CALLS, outside).accuracy == 1.0


def test_what_is_left_would_be_seen(scorer: CodeScorer):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(scorer.score, "def f(x):\n    while True: pass\n", CALLS)
        while not sandboxes_left() and not future.done():
            time.sleep(0.01)
        assert not future.done()


@pytest.mark.parametrize(
    "name", ["tcp", "unix socket", "a file of the one who grades", "the environment", "the user list"]
)
def test_holes_are_found_without_a_sandbox(name: str, outside: dict[str, str]):
    """The attacks work where nothing stops them, so that their failing elsewhere says something."""
    attack = next(attack for attack in ATTACKS if attack["name"] == name)
    unsafe = CodeScorer(create_sandbox("unsafe_local", LIMITS))
    assert grade(unsafe, attack["code"], CALLS, outside).accuracy == 1.0


REACHING = [
    "the priority of the process that starts the cases",
    "the limits of the process that starts the cases",
    "the processors of the process that starts the cases",
    "the scheduling of the process that starts the cases",
    "signals to the process that starts the cases",
    "signals by way of a descriptor's owner",
]


@pytest.mark.parametrize("name", REACHING)
def test_cases_reach_each_other_without_their_own_filter(name: str, outside: dict[str, str]):
    """That these attacks fail elsewhere is owed to the filter of the cases, and not to the attacks."""
    attack = next(attack for attack in ATTACKS if attack["name"] == name)
    sandbox = create_sandbox("bubblewrap", LIMITS)
    sandbox._case_filter = seccomp_filter()
    assert grade(CodeScorer(sandbox), attack["code"], PROGRAM, outside).accuracy == 1.0


def test_stop_iteration_does_not_end_a_loop_of_the_tests(scorer: CodeScorer):
    assert scorer.score(RIGHT, LOOP).accuracy == 1.0
    assert scorer.score("def f(x):\n    raise StopIteration\n", LOOP).accuracy == 0.0
