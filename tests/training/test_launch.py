"""Commands in processes of their own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from rich.console import Console

from verl_rsim.training import job_launch, launch

pytestmark = pytest.mark.slow

PARENT = (
    "from verl_rsim.training import launch\n"
    "launch.run([{python!r}, '-c', 'import time; print(1, flush=True); time.sleep(60)'])"
)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
def test_a_command_dies_with_the_process_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(python=sys.executable)], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"1\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_a_command_is_told_where_things_are_and_gives_its_status(tmp_path, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    monkeypatch.delenv("VERL_FILE_LOGGER_ROOT", raising=False)
    wanted = {"RSIM_HOME": str(tmp_path), "VERL_FILE_LOGGER_ROOT": str(tmp_path / "metrics"), "MORE": "1"}
    code = f"import os, sys; sys.exit(3 if {wanted!r}.items() <= os.environ.items() else 4)"
    assert launch.run([sys.executable, "-c", code], {"MORE": "1"}) == 3


PROGRAM = """
import os, signal, sys, time
print("noise of the driver", flush=True)
print("\\x1b[36m(WorkerDict pid=7)\\x1b[0m noise of a worker", flush=True)
print('(WorkerDict pid=7) @rsim-event@ {"kind": "phase", "name": "loading the models", "role": ""}', flush=True)
print('@rsim-event@ {"kind": "processes", "names": {"7": "planner worker 0"}}', flush=True)
"""
FAILS = (
    PROGRAM
    + """
print("verl_rsim.utils.errors.JobDied: planner worker 0 died", flush=True)
sys.exit(3)
"""
)
WAITS = (
    PROGRAM
    + """
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("x" * 200_000, flush=True)  # more than a pipe holds
    sys.exit(1)
"""
)


def quietly(tmp_path, program: str, interrupt: bool = False) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    if interrupt:
        threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    status = job_launch._run_quietly([sys.executable, "-c", program], tmp_path / "logs", console)
    return status, console.file.getvalue()


def test_a_quiet_job_shows_phases_and_keeps_everything_else_in_logs(tmp_path):
    status, text = quietly(tmp_path, PROGRAM)
    assert status == 0
    assert "loading the models … " in text
    assert "noise" not in text
    assert (tmp_path / "logs/driver.log").read_text() == "noise of the driver\n"
    assert (tmp_path / "logs/WorkerDict-7.log").read_text() == "noise of a worker\n"


def test_a_quiet_job_that_fails_ends_with_the_error_and_the_log_of_the_culprit(tmp_path):
    status, text = quietly(tmp_path, FAILS)
    assert status == 3
    *_, title, tail, error = text.splitlines()
    assert title == f"The job failed (exit status 3). Last lines of {tmp_path / 'logs/WorkerDict-7.log'}:"
    assert tail.strip() == "noise of a worker"
    assert error == "verl_rsim.utils.errors.JobDied: planner worker 0 died"


def test_an_interrupt_ends_a_quiet_job_that_still_has_much_to_say(tmp_path):
    status, text = quietly(tmp_path, WAITS, interrupt=True)
    assert status == job_launch.INTERRUPTED
    assert "Interrupted in the phase: loading the models." in text


def test_a_process_left_behind_with_the_pipe_does_not_hold_the_command_up(tmp_path, monkeypatch):
    monkeypatch.setattr(job_launch, "DRAIN_SECONDS", 0.5)
    left = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])"
    started = time.monotonic()
    assert quietly(tmp_path, left)[0] == 0
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("recipe", "overrides", "folder"),
    [
        ("quickstart", (), "runs/quickstart"),
        ("quickstart", ("rsim.console=verl",), None),
        ("quickstart", ("trainer.default_local_dir=/runs/mine",), "/runs/mine"),
        ("quickstart", ("--cfg", "job"), None),
        ("quickstart", ("rsim.nonsense=1",), None),
        ("math_grpo/qwen2.5_0.5b", (), None),
    ],
)
def test_only_a_job_that_asks_for_the_summary_is_quiet(tmp_path, monkeypatch, recipe, overrides, folder):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    expected = tmp_path / folder if folder else None
    assert job_launch._summary_folder(recipe, overrides) == expected
