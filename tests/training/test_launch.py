"""Commands in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from verl_rsim.training import launch

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
