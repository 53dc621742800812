from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from verl_rsim.reward.math_grading.worker_pool import TaskResult, TaskStatus, WorkerPool

pytestmark = pytest.mark.slow

TASKS = """
import os, time
from verl_rsim.reward.math_grading.worker_pool import serve_tasks

def task(name, value):
    if name == "echo":
        return value
    if name == "sleep":
        time.sleep(value)
    if name == "count in C":
        9 ** 9 ** 9
    if name == "allocate":
        return len(bytearray(value))
    if name == "fail":
        raise ValueError
    if name == "process id":
        return os.getpid()

serve_tasks(task)
"""


@pytest.fixture(scope="module", autouse=True)
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "some_tasks.py").write_text(TASKS)
    (folder / "no_tasks.py").write_text("raise SystemExit('nothing here')")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])
    yield folder
    os.environ.pop("PYTHONPATH")
    if before:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def pool():
    pool = WorkerPool("some_tasks", workers=2, timeout=0.5, memory_bytes=1 << 28)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        (("sleep", 9), TaskStatus.TIMEOUT),
        (("count in C", 0), TaskStatus.TIMEOUT),
        (("allocate", 1 << 30), TaskStatus.CRASH),
        (("fail", 0), TaskStatus.CRASH),
    ],
)
def test_a_task_that_ends_badly_costs_itself_only(pool, task, ending):
    pool.run("echo", 0)
    start = time.perf_counter()
    assert pool.run(*task) == TaskResult(ending)
    assert time.perf_counter() - start < 1.0
    assert all(pool.run("echo", n) == TaskResult(TaskStatus.DONE, n) for n in range(10))


def test_more_callers_than_workers_wait_for_their_turn(pool):
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda n: pool.run("echo", n).value, range(200))) == list(range(200))


def test_a_kill_in_mid_run_costs_at_most_the_task_it_hits(pool):
    stop = threading.Event()
    kills = 0

    def kill_now_and_then():
        nonlocal kills
        while not stop.wait(0.05):
            for keeper in pool.process_ids():
                for process in psutil.Process(keeper).children():
                    process.kill()
                    kills += 1

    killer = threading.Thread(target=kill_now_and_then)
    pool.run("echo", 0)
    killer.start()
    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(lambda n: pool.run("echo", n), range(3000)))
    stop.set()
    killer.join()
    crashed = sum(outcome.status is TaskStatus.CRASH for outcome in outcomes)
    assert kills > 0
    assert crashed <= kills
    assert all(
        outcome in (TaskResult(TaskStatus.DONE, n), TaskResult(TaskStatus.CRASH)) for n, outcome in enumerate(outcomes)
    )
    assert all(pool.run("echo", n) == TaskResult(TaskStatus.DONE, n) for n in range(50))


def test_a_process_killed_while_idle_costs_nothing(pool):
    process = pool.run("process id", 0).value
    os.kill(process, signal.SIGKILL)
    time.sleep(0.2)
    assert all(pool.run("echo", n) == TaskResult(TaskStatus.DONE, n) for n in range(10))


def test_a_killed_keeper_is_replaced(pool):
    pool.run("echo", 0)
    before = pool.process_ids()
    for keeper in before:
        os.killpg(keeper, signal.SIGKILL)
    outcomes = [pool.run("echo", n) for n in range(6)]
    assert sum(outcome.status is TaskStatus.CRASH for outcome in outcomes) <= 2
    assert outcomes[-1] == TaskResult(TaskStatus.DONE, 5)
    assert before != pool.process_ids()


def test_a_worker_that_cannot_start_is_an_error():
    pool = WorkerPool("no_tasks", workers=1, timeout=1.0, memory_bytes=1 << 28)
    with pytest.raises(RuntimeError, match="did not start"):
        pool.run("echo", 1)
    pool.close()


class Refused(subprocess.Popen):
    """A process that the system refuses so many times."""

    error = errno.EAGAIN
    times = 0

    def __init__(self, *arguments, **options):
        if Refused.times > 0:
            Refused.times -= 1
            raise OSError(Refused.error, os.strerror(Refused.error))
        super().__init__(*arguments, **options)


@pytest.fixture
def refused(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Refused)
    yield Refused
    Refused.times = 0


def test_a_replacement_that_is_refused_once_is_tried_again(refused):
    pool = WorkerPool("some_tasks", workers=1, timeout=1.0, memory_bytes=1 << 28)
    pool.run("echo", 0)
    refused.times = 1
    os.killpg(pool.process_ids()[0], signal.SIGKILL)
    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(lambda n: pool.run("echo", n), range(8)))
    pool.close()
    assert sum(outcome.status is TaskStatus.CRASH for outcome in outcomes) == 1


@pytest.mark.parametrize(
    ("error", "limit"),
    [(errno.EAGAIN, "ulimit -u"), (errno.EMFILE, "ulimit -n"), (errno.ENOMEM, "memory.max")],
)
def test_replacements_that_are_always_refused_are_an_error_for_all_who_wait(refused, error, limit):
    pool = WorkerPool("some_tasks", workers=2, timeout=1.0, memory_bytes=1 << 28)
    pool.run("echo", 0)
    wait_until(lambda: len(pool.process_ids()) == 2)
    refused.times, refused.error = 1_000, error
    for keeper in pool.process_ids():
        os.killpg(keeper, signal.SIGKILL)

    def problem(n: int) -> str:
        try:
            return pool.run("echo", n).status.value
        except RuntimeError as raised:
            return str(raised)

    with ThreadPoolExecutor(6) as threads:
        problems = list(threads.map(problem, range(6)))
    assert sum(limit in problem for problem in problems) >= 4, problems
    assert limit in problem(0)
    refused.times = 0
    assert pool.run("echo", 7) == TaskResult(TaskStatus.DONE, 7)
    pool.close()


def test_a_start_without_threads_is_done_by_the_caller(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = WorkerPool("some_tasks", workers=1, timeout=1.0, memory_bytes=1 << 28)
    assert pool.run("echo", 3) == TaskResult(TaskStatus.DONE, 3)
    pool.close()


def test_a_wait_is_bounded(pool, monkeypatch):
    workers = [pool._acquire(), pool._acquire()]
    monkeypatch.setattr("verl_rsim.reward.math_grading.worker_pool.START_SECONDS", 0.0)
    monkeypatch.setattr("verl_rsim.reward.math_grading.worker_pool.MAX_BACK_OFF", 0.0)
    pool._task_seconds = 0.1
    with pytest.raises(RuntimeError, match="no worker was free"):
        pool.run("echo", 1)
    for worker in workers:
        pool._release(worker)
    assert pool.run("echo", 2) == TaskResult(TaskStatus.DONE, 2)


def test_a_closed_pool_refuses_work_and_leaves_no_process(pool):
    process = pool.run("process id", 0).value
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.run("echo", 1)
    wait_until(lambda: not alive(process))


@pytest.mark.parametrize("busy", [False, True])
def test_workers_die_with_a_parent_that_is_killed(tasks, busy):
    script = (
        "import threading, time; from verl_rsim.reward.math_grading.worker_pool import WorkerPool\n"
        "pool = WorkerPool('some_tasks', 1, 2.0, 1 << 28)\n"
        "process = pool.run('process id', 0).value\n"
        "print(pool.process_ids()[0], process, flush=True)\n"
        + ("pool.run('count in C', 0)\n" if busy else "time.sleep(60)\n")
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    processes = [int(word) for word in parent.stdout.readline().split()]
    time.sleep(0.3)
    assert all(alive(process) for process in processes)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(alive(process) for process in processes))


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
