"""A driver shuts Ray down in bounded time even if the raylet is stopped; tested in real clusters."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.slow

DRIVER = """
import os, signal, sys
import ray
from verl_rsim.monitoring.watchdog import ray_shutdown

ray_shutdown.install_timeouts(3600.0)
ray_shutdown.SHUTDOWN_TIMEOUT_SECONDS = {bound}
ray.init({where}, include_dashboard=False, logging_level="error")
ray.get(ray.remote(lambda: 1).remote())
os.kill({raylet}, signal.SIGSTOP)
sys.exit(3)
"""
OWN = "ray._private.worker._global_node.all_processes['raylet'][0].process.pid"
CLUSTER = """
import time, ray
context = ray.init(num_cpus=1, include_dashboard=False, logging_level="error")
node = ray._private.worker._global_node
print(context.address_info["gcs_address"], node.all_processes["raylet"][0].process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _one_token(monkeypatch):
    """Gives all clusters one token: once Ray has made a token on a machine, its clusters require it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))


def leave(script: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_a_stopped_raylet_is_ended_with_its_driver():
    driver = leave(DRIVER.format(where="num_cpus=1", raylet=OWN, bound=60.0))
    assert driver.returncode == 3, driver.stderr
    stopped = re.search(r"Ray's raylet is stopped \(process (\d+)\); it is ended with the job", driver.stderr)
    assert not psutil.pid_exists(int(stopped[1]))


def test_a_stopped_raylet_of_others_is_waited_for_no_longer_than_the_bound():
    cluster = subprocess.Popen([sys.executable, "-c", CLUSTER], stdout=subprocess.PIPE, text=True)
    try:
        address, raylet = cluster.stdout.readline().split()
        driver = leave(DRIVER.format(where=f"address={address!r}", raylet=raylet, bound=3.0))
        assert driver.returncode == 1
        assert "Timeout (0:00:03)!" in driver.stderr
        assert "in shutdown" in driver.stderr
        # The driver did not start this raylet, so it must not kill it.
        assert psutil.Process(int(raylet)).status() == psutil.STATUS_STOPPED
    finally:
        os.kill(cluster.pid, signal.SIGKILL)  # its processes die with it
        cluster.wait(30)


WAITING = """
import os, signal, time
import ray
from verl_rsim.monitoring.watchdog import ray_shutdown

ray_shutdown.POLL_SECONDS = 0.5
ray_shutdown.install_timeouts(3.0)
ray.init(num_cpus=1, include_dashboard=False, logging_level="error")
os.kill({raylet}, signal.SIGSTOP)
ray.get(ray.remote(time.sleep).remote(600))
"""


def test_a_stopped_raylet_ends_a_driver_that_waits():
    """The task never starts: unless the raylet is killed, the driver waits until Ray gives the node up, or longer."""
    driver = leave(WAITING.format(raylet=OWN))
    assert driver.returncode != 0
    assert re.search(r"Ray's raylet is stopped \(process \d+\); it is ended with the job", driver.stderr), driver.stderr
