"""The watchdog ends a job that makes no progress, with an error that names the cause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from verl_rsim.config.schema import WatchdogConfig
from verl_rsim.monitoring.watchdog.diagnosis import stopped_processes
from verl_rsim.monitoring.watchdog.process_heartbeat import heartbeat
from verl_rsim.monitoring.watchdog.rollout_tracker import TRACKER, track_errors, track_wait
from verl_rsim.utils.errors import JobDied

pytestmark = pytest.mark.slow


@pytest.fixture
def tracker():
    yield TRACKER
    TRACKER.waiting.clear()
    TRACKER.errors.clear()


def test_an_episode_counts_as_waiting_while_it_waits(tracker):
    with track_wait("the reward"):
        assert tracker.waiting["the reward"] == 1
    assert tracker.waiting["the reward"] == 0


def test_a_failure_counts_for_whom_it_was_waited(tracker):
    with pytest.raises(ValueError, match="no such word"), track_wait("the planner's server"):
        raise ValueError("no such word\nand more of it")
    assert tracker.errors == {"the planner's server: ValueError: no such word": 1}
    assert tracker.waiting["the planner's server"] == 0


def test_a_failure_counts_once_and_for_the_innermost(tracker):
    with pytest.raises(KeyError), track_errors("the episode"), track_wait("the reward"):
        raise KeyError(2)
    with pytest.raises(KeyError), track_errors("the episode"):
        raise KeyError(1)
    assert tracker.errors == {"the reward: KeyError: 2": 1, "the episode: KeyError: 1": 1}


def test_a_stopped_process_is_found_below_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"])
    try:
        end = time.monotonic() + 10
        while not (children := _children(parent.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        assert list(stopped_processes({parent.pid: "the server"})) == []
        os.kill(children[0], signal.SIGSTOP)
        (found,) = _until(lambda: list(stopped_processes({parent.pid: "the server"})))
        assert found == (children[0], "a child of the server")
    finally:
        for pid in _children(parent.pid):
            os.kill(pid, signal.SIGKILL)
        parent.wait(10)


SILENT = "has sent no heartbeat for 1 s (a.key)"
HEARTBEAT = """
import os, sys, time
from verl_rsim.monitoring.watchdog.process_heartbeat import heartbeat
with heartbeat(1.0, "a.key") as beat:
    for _ in range(25):
        beat()
        time.sleep(0.1)
    print("alive", flush=True)
    {then}
print("over", flush=True)
"""


@pytest.mark.parametrize(
    ("then", "status", "printed", "message"),
    [
        ("pass", 0, "alive\nover\n", ""),
        ("sys.exit(3)", 3, "alive\n", ""),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, "alive\n", "died: it was killed"),
        ("os.killpg(0, 9)", -signal.SIGKILL, "alive\n", "died: it was killed"),
        ("os.kill(os.getpid(), 19)", -signal.SIGKILL, "alive\n", SILENT),
        ("'a' * 40 == __import__('re').match('(a*)*b', 'a' * 40)", -signal.SIGKILL, "alive\n", SILENT),
    ],
    ids=["lives", "leaves", "killed", "killed with its process group", "stopped", "never lets go of the interpreter"],
)
def test_a_process_without_a_sign_of_life_is_ended_and_one_that_died_is_named(then, status, printed, message):
    command = [sys.executable, "-c", HEARTBEAT.format(then=then)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        out, error = job.communicate(timeout=60)
    assert (job.returncode, out) == (status, printed)
    prefix = f"the trainer's process {job.pid} (the task runner) "
    assert error.startswith(prefix + message) if message else not error


ACTORS = """
import os, time
import ray
from verl_rsim.monitoring.watchdog.watchdog import ended_on_purpose
ray.init(num_cpus=1, include_dashboard=False, logging_level="error")

@ray.remote(num_cpus=0)
class Actor:
    def pid(self):
        return os.getpid()
    def leave(self):
        ray.actor.exit_actor()

names = ("killed by ray", "dropped", "left", "killed")
actors = {name: Actor.remote() for name in names}
pids = {name: ray.get(actors[name].pid.remote()) for name in names}
ids = {actors[name]._actor_id.hex(): name for name in names}
ray.kill(actors["killed by ray"])
actors["left"].leave.remote()
os.kill(pids["killed"], 9)
del actors["dropped"]
end = time.monotonic() + 30
while time.monotonic() < end:
    dead = {ids[key]: actor["DeathCause"] for key, actor in ray._private.state.actors().items()
            if actor["State"] == "DEAD"}
    if len(dead) == len(names):
        break
    time.sleep(0.1)
print({name: ended_on_purpose(cause) for name, cause in sorted(dead.items())})
"""


def test_an_actor_that_ended_on_purpose_is_told_from_one_that_died():
    job = subprocess.run([sys.executable, "-c", ACTORS], capture_output=True, text=True, timeout=120)
    expected = {"dropped": True, "killed": False, "killed by ray": True, "left": True}
    assert job.stdout.strip().splitlines()[-1:] == [str(expected)], job.stderr[-2000:]


def test_a_job_goes_on_without_its_guard():
    with heartbeat(1.0, "a.key") as beat:
        for pid in _children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        beat()


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _until(found, seconds: float = 5.0):
    end = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def agent(cluster):
    """An agent loop worker with failed episodes and episodes that wait for a server."""

    class AgentLoopWorker:
        def begin(self):
            from verl_rsim.monitoring.watchdog.rollout_tracker import TRACKER

            TRACKER.waiting["the reasoner's server"] = 12
            TRACKER.errors["the reward: ValueError: broken"] = 4

        def pid(self):
            return os.getpid()

    actor = cluster.remote(AgentLoopWorker).remote()
    cluster.get(actor.begin.remote())
    yield actor
    cluster.kill(actor)


def watchdog(agent, stall_seconds: float, **phase_seconds: float):
    from verl_rsim.monitoring.watchdog.watchdog import Watchdog, actor_id

    limits = WatchdogConfig(poll_seconds=0.1, stall_seconds=stall_seconds, phase_seconds=phase_seconds)
    found = Watchdog(lambda: [], limits)
    found.agent_loop_workers, found.actor_names = [agent], {actor_id(agent): "agent loop worker 0"}
    return found


def test_a_stall_names_whom_the_episodes_wait_for(agent):
    with pytest.raises(JobDied, match=r"nothing moved for 0 s in phase 'start'.*; 12 episodes wait for the reaso"):
        watchdog(agent, 0.3).run(lambda: time.sleep(5))


def test_a_phase_may_have_a_bound_of_its_own(agent):
    watched = watchdog(agent, 60.0, save=0.3)

    def work():
        watched.begin_phase("step 1: rollout", "rollout")
        time.sleep(1)
        watched.begin_phase("step 1: save", "save")
        time.sleep(5)

    with pytest.raises(JobDied, match=r"in phase 'step 1: save' \(rsim.watchdog.phase_seconds.save\)"):
        watched.run(work)


def test_of_two_roles_at_once_each_has_its_own_bound(agent):
    watched = watchdog(agent, 60.0, update=0.5)

    def work(slow: str) -> str:
        watched.begin_phase("step 1: rollout", "rollout")
        watched.begin_phase("step 1: planner's update", "update", "planner")
        watched.begin_phase("step 1: reasoner's log-probs", "log_probs", "reasoner")
        watched.end_phase("planner")
        time.sleep(1)
        watched.begin_phase(f"step 1: reasoner's {slow}", slow, "reasoner")
        watched.begin_phase("step 1: planner's log-probs", "log_probs", "planner")
        time.sleep(1)
        watched.end_phase("planner")
        watched.end_phase("reasoner")
        time.sleep(1)
        return "done"

    assert watched.run(lambda: work("log_probs")) == "done"
    with pytest.raises(JobDied, match=r"in phase \"step 1: reasoner's update\" \(rsim.watchdog.phase_seconds.update\)"):
        watched.run(lambda: work("update"))


def test_a_start_that_takes_too_long_names_its_own_key(agent):
    from verl_rsim.monitoring.watchdog.watchdog import Watchdog

    with pytest.raises(JobDied, match=r"in phase 'start' \(rsim.watchdog.start_seconds\)"):
        Watchdog(lambda: [], WatchdogConfig(poll_seconds=0.1, start_seconds=0.3)).run(
            lambda: time.sleep(5), starting=True
        )


def test_a_stall_names_the_worker_that_was_stopped(agent, cluster, monkeypatch):
    monkeypatch.setattr("verl_rsim.monitoring.watchdog.diagnosis.ANSWER_TIMEOUT_SECONDS", 0.5)
    pid = cluster.get(agent.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(JobDied) as raised:
            watchdog(agent, 0.3).run(lambda: time.sleep(5))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"agent loop worker 0 (actor AgentLoopWorker) is stopped (process {pid};" in str(raised.value)
    assert "1 of 1 agent loop workers (RsimAgentLoopWorker) do not answer" in str(raised.value)


def test_a_batch_that_failed_is_told_with_its_errors(agent):
    assert watchdog(agent, 1.0).failures() == "; 4 times the reward: ValueError: broken"


def test_a_worker_that_starts_later_is_watched_too(cluster):
    class Late:
        def pid(self):
            return os.getpid()

    started = []

    def work():
        started.append(cluster.remote(Late).remote())
        pid = cluster.get(started[0].pid.remote())
        time.sleep(1)
        os.kill(pid, signal.SIGKILL)
        time.sleep(20)

    from verl_rsim.monitoring.watchdog.watchdog import Watchdog

    with pytest.raises(JobDied, match="actor Late died"):
        Watchdog(lambda: [], WatchdogConfig(poll_seconds=0.1)).run(work)


def test_a_killed_worker_is_named(agent, cluster):
    pid = cluster.get(agent.pid.remote())

    def work():
        os.kill(pid, signal.SIGKILL)
        time.sleep(20)

    message = r"^agent loop worker 0 \(actor AgentLoopWorker\) died in phase 'start': The actor is dead because"
    with pytest.raises(JobDied, match=message):
        watchdog(agent, 60.0).run(work)


def test_an_error_that_came_of_a_killed_worker_names_the_worker(agent, cluster):
    def work():
        os.kill(cluster.get(agent.pid.remote()), signal.SIGKILL)
        cluster.get(agent.pid.remote())

    with pytest.raises(JobDied, match=r"agent loop worker 0 \(actor AgentLoopWorker\) died"):
        watchdog(agent, 60.0).run(work)


def test_an_error_of_the_work_itself_is_raised_as_it_is(agent):
    def work():
        raise KeyError("the work's own")

    with pytest.raises(KeyError, match="the work's own"):
        watchdog(agent, 60.0).run(work)
