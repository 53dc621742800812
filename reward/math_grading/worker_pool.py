"""Worker processes that can be killed at any instant, at the cost of the one task they were at.

A worker is a *keeper* process that imports what the tasks need, once, and then forks the process that does them. A task
that outlives its time-out is killed by the kernel (an interval timer with its default action, so that no C loop and no
caught exception can hold it up); a process killed by that, by the memory limit or by anyone's ``kill -9`` is replaced
by the next fork, in milliseconds. Messages are datagrams, so a death in mid-message garbles nothing. When the process
that owns the pool is gone, by SIGKILL too, its end of the socket closes: idle workers end at once, busy ones at the
time-out.

Why not a library: pebble 5.2 breaks for good when an idle worker dies, and ``concurrent.futures`` when any does.
It is no sandbox: the tasks are code of this package on hostile *data*. Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from enum import Enum
from typing import Any

START_SECONDS = 120.0
"""What a worker may take to import its modules; not part of any task's time-out."""
GRACE_SECONDS = 5.0
"""How long after the time-out a worker that does not answer at all, even of its death, is given up."""
MAX_FAILED_STARTS = 3
"""So many failed starts in a row are an error; one may have been killed by someone, or a limit hit for a moment."""
BACK_OFF, MAX_BACK_OFF = 0.25, 5.0
"""Seconds before the second start, four times as many before each further one, up to a bound."""
_LIMITS = {
    errno.EAGAIN: "raise the limit on processes (ulimit -u, or pids.max of the container)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files (sysctl fs.file-max)",
    errno.ENOMEM: "raise the limit on memory (ulimit -v, or memory.max of the container)",
}
MAX_MESSAGE_BYTES = 1 << 17


class Ending(Enum):
    """How a task ended."""

    DONE = "done"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended and, if done, the value its function returned."""

    ending: Ending
    value: Any = None


class WorkerPool:
    """Runs tasks in worker processes; thread-safe.

    Args:
        module: run as ``python -m module`` in each worker; it calls :func:`work`.
        workers: how many tasks run at a time; further callers wait for their turn.
        timeout: seconds (wall clock) for one task.
        memory_bytes: address space of a worker.
    """

    def __init__(self, module: str, workers: int, timeout: float, memory_bytes: int):
        self._arguments = (module, timeout, memory_bytes)
        self._size, self._turn_seconds = workers, timeout + GRACE_SECONDS
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._missing = 0  # workers given up after failed starts, until the next caller asks
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []  # last in, first out: the one that has just answered has the warmest caches
        self._waiting: deque[futures.Future[_Worker]] = deque()  # first in, first out: no caller is passed over
        for _ in range(workers):
            self._start()

    def run(self, *arguments: Any) -> Outcome:
        """Run one task of JSON values; blocks, but not for ever.

        Raises:
            RuntimeError: the pool is closed, or no worker can be started, or none was free for much too long.
        """
        worker = self._take()
        try:
            return worker.run(arguments)
        finally:
            self._give_back(worker)

    def process_ids(self) -> list[int]:
        """The keepers' process ids."""
        with self._lock:
            return [worker.process.pid for worker in self._all]

    def close(self) -> None:
        """Kill the workers; a task in progress ends as a crash."""
        with self._lock:
            self._closed.set()
            for worker in self._all:
                worker.kill()
            self._all.clear()
            self._fail_waiting("the worker pool is closed")

    def _take(self) -> _Worker:
        """The next free worker, each caller in its turn; raises RuntimeError."""
        turn: futures.Future[_Worker] = futures.Future()
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("the worker pool is closed")
            ahead = len(self._waiting)
            if self._idle:
                turn.set_result(self._idle.pop())
            else:
                self._waiting.append(turn)
            missing, self._missing = self._missing, 0
        for _ in range(missing):
            self._start()
        seconds = MAX_FAILED_STARTS * (START_SECONDS + MAX_BACK_OFF) + (1 + ahead // self._size) * self._turn_seconds
        try:
            return turn.result(seconds)
        except futures.TimeoutError:
            if turn.cancel():
                raise RuntimeError(f"no worker was free in {seconds:.0f} s, with {ahead} callers ahead") from None
            return turn.result()  # it came at the last moment

    def _start(self) -> None:
        try:
            threading.Thread(target=self._bring_up, daemon=True).start()
        except RuntimeError:  # not even a thread can be had: the caller does it, late but in bounded time
            self._bring_up()

    def _bring_up(self) -> None:
        """Start a worker and offer it; give up after :data:`MAX_FAILED_STARTS` attempts, with increasing pauses."""
        for attempt in range(MAX_FAILED_STARTS):
            if self._closed.wait(min(MAX_BACK_OFF, BACK_OFF * 4 ** (attempt - 1)) if attempt else 0):
                return
            try:
                worker = _Worker(*self._arguments)
            except OSError as error:
                problem = f"a worker cannot be started: {error}; {_limit(error)}"
                continue
            with self._lock:
                if self._closed.is_set():
                    worker.kill()
                    return
                self._all.add(worker)
            if worker.await_start():
                with self._lock:
                    self._offer(worker)
                return
            problem = f"a worker did not start (exit status {worker.process.poll()}); its error is on stderr"
            self._drop(worker)
        with self._lock:
            self._missing += 1
            if self._missing >= self._size:
                self._fail_waiting(problem)

    def _offer(self, worker: _Worker) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    def _fail_waiting(self, problem: str) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                turn.set_exception(RuntimeError(problem))

    def _give_back(self, worker: _Worker) -> None:
        if not worker.broken:
            with self._lock:
                if not self._closed.is_set():
                    self._offer(worker)
        else:
            self._drop(worker)
            if not self._closed.is_set():
                self._start()

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
            worker.kill()


def _limit(error: OSError) -> str:
    return _LIMITS.get(error.errno or 0, "see the system's limits on processes, files and memory")


class _Worker:
    """One keeper as the owner of the pool sees it; used by one thread at a time."""

    def __init__(self, module: str, timeout: float, memory_bytes: int):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", module, str(theirs.fileno()), str(timeout), str(memory_bytes)]
            try:
                self.process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # so that one signal reaches the keeper and its fork, and Ctrl-C neither
                )
            except OSError:
                self._socket.close()
                raise
        self.broken = True
        self._timeout, self._task = timeout, 0

    def await_start(self) -> bool:
        self.broken = self._receive(START_SECONDS) is None
        return not self.broken

    def run(self, arguments: tuple[Any, ...]) -> Outcome:
        self._task += 1
        try:
            self._drop_old_news()
            self._socket.send(json.dumps([self._task, *arguments]).encode())
        except OSError:
            self.broken = True
            return Outcome(Ending.CRASH)
        deadline = time.monotonic() + self._timeout + GRACE_SECONDS
        while (message := self._receive(deadline - time.monotonic())) is not None:
            if "died" in message:
                return Outcome(Ending.TIMEOUT if message["died"] == -signal.SIGALRM else Ending.CRASH)
            if message["task"] == self._task:
                return Outcome(Ending.DONE, message["value"])
        self.broken = True
        return Outcome(Ending.TIMEOUT if time.monotonic() >= deadline else Ending.CRASH)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a process that the kernel cannot end is not ours
                self.process.wait(GRACE_SECONDS)
        self._socket.close()

    def _drop_old_news(self) -> None:
        """A process that was killed while idle costs no task: the next one waits already."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(MAX_MESSAGE_BYTES):
                pass
        except BlockingIOError:
            pass

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None if there is none in time or nobody is left to send one."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            message = self._socket.recv(MAX_MESSAGE_BYTES)
        except OSError:  # includes the time-out
            return None
        return json.loads(message) if message else None


def work(function: Callable[..., Any]) -> None:
    """The main loop of a worker's module, to be called once everything is imported and warm; returns at the end.

    Args:
        function: does one task; takes and returns JSON values. An exception it raises ends its process: a crash.
    """
    descriptor, timeout, memory_bytes = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = socket.socket(fileno=descriptor)
    gc.freeze()  # what is imported stays shared between the keeper and its forks
    try:
        connection.send(json.dumps({"ready": True}).encode())
        while True:
            process = os.fork()
            if process == 0:
                _serve(connection, function, timeout)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status == 0:
                return
            connection.send(json.dumps({"died": status}).encode())
    except OSError:  # the owner of the pool is gone
        return


def _serve(connection: socket.socket, function: Callable[..., Any], timeout: float) -> None:
    """Do tasks until the owner hangs up; never returns."""
    status = 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own kill, whatever was inherited
    try:
        while message := connection.recv(MAX_MESSAGE_BYTES):
            task, *arguments = json.loads(message)
            signal.setitimer(signal.ITIMER_REAL, timeout)
            value = function(*arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(json.dumps({"task": task, "value": value}).encode())
        status = 0
    finally:
        os._exit(status)  # without a traceback: the keeper reports the death
