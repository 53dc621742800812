"""Runs tasks in worker processes that can be killed at any instant, at the cost of the one task they are at.

A worker is a *fork server*: a process that imports what the tasks need, once, and then forks the process that does the
tasks. A task that outlives its timeout is killed by the kernel: SIGALRM of an interval timer keeps its default action,
so that no loop in C and no ``except`` can hold it up. A process killed by that, by the memory limit or by ``kill -9``
is replaced by the next fork, within milliseconds. Messages are datagrams, so a death in the middle of a message
garbles nothing. When the owner of the pool dies, even by SIGKILL, its end of the socket closes: idle workers end at
once, busy ones at the timeout.

No library does this: pebble 5.2 breaks for good when an idle worker dies, and ``concurrent.futures`` when any does.
The pool is no sandbox: its tasks are code of this package, only their *data* is hostile. Linux only.
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
"""Seconds that a worker may take to import its modules; not part of any task's timeout."""
GRACE_SECONDS = 5.0
"""Seconds after the timeout at which a worker that reports nothing, not even a death, is given up."""
MAX_FAILED_STARTS = 3
"""Failed starts in a row that are an error; a single one may be a chance kill, or a limit that was hit for a moment."""
BACK_OFF, MAX_BACK_OFF = 0.25, 5.0
"""Seconds before the second start, and upper bound; each further wait is four times as long."""
_LIMIT_HINTS = {
    errno.EAGAIN: "raise the limit on processes (ulimit -u, or pids.max of the container)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files (sysctl fs.file-max)",
    errno.ENOMEM: "raise the limit on memory (ulimit -v, or memory.max of the container)",
}
MAX_MESSAGE_BYTES = 1 << 18


class TaskStatus(Enum):
    """Ways in which a task ends."""

    DONE = "done"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Status of a task that ended and, if it is DONE, the value that its function returned."""

    status: TaskStatus
    value: Any = None  # any JSON value


class WorkerPool:
    """Runs tasks in worker processes; thread-safe.

    Args:
        module: module that each worker runs as ``python -m module``; it calls :func:`serve_tasks`.
        workers: number of tasks at a time; further callers wait.
        timeout: seconds (wall clock) for one task.
        memory_bytes: address space of a worker.
    """

    def __init__(self, module: str, workers: int, timeout: float, memory_bytes: int):
        self._arguments = (module, timeout, memory_bytes)
        self._size, self._task_seconds = workers, timeout + GRACE_SECONDS
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._missing = 0  # workers given up after failed starts; the next caller starts them again
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []  # last in, first out: the one that has just answered has the warmest caches
        self._waiting: deque[futures.Future[_Worker]] = deque()  # first in, first out: no caller is passed over
        for _ in range(workers):
            self._start_in_background()

    def run(self, *arguments: Any) -> TaskResult:
        """Runs one task of JSON values. Blocks until it has ended, for a bounded time.

        Raises:
            RuntimeError: the pool is closed, no worker can be started, or none was free in time.
        """
        worker = self._acquire()
        try:
            return worker.run(arguments)
        finally:
            self._release(worker)

    def process_ids(self) -> list[int]:
        """Returns the process ids of the fork servers."""
        with self._lock:
            return [worker.process.pid for worker in self._all]

    def close(self) -> None:
        """Kills the workers; a task in progress ends as a crash."""
        with self._lock:
            self._closed.set()
            for worker in self._all:
                worker.kill()
            self._all.clear()
            self._fail_waiting("the worker pool is closed")

    def _acquire(self) -> _Worker:
        """Returns the next free worker, first come first served; raises RuntimeError."""
        future: futures.Future[_Worker] = futures.Future()
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("the worker pool is closed")
            ahead = len(self._waiting)
            if self._idle:
                future.set_result(self._idle.pop())
            else:
                self._waiting.append(future)
            missing, self._missing = self._missing, 0
        for _ in range(missing):
            self._start_in_background()
        # The longest legitimate wait: all starts fail but the last, and each caller ahead takes its full time.
        seconds = MAX_FAILED_STARTS * (START_SECONDS + MAX_BACK_OFF) + (1 + ahead // self._size) * self._task_seconds
        try:
            return future.result(seconds)
        except futures.TimeoutError:
            if future.cancel():
                raise RuntimeError(f"no worker was free in {seconds:.0f} s, with {ahead} callers ahead") from None
            return future.result()  # a worker was assigned between the timeout and the cancellation

    def _start_in_background(self) -> None:
        try:
            threading.Thread(target=self._start_worker, daemon=True).start()
        except RuntimeError:  # the limit on threads is reached: the caller starts it, late but in bounded time
            self._start_worker()

    def _start_worker(self) -> None:
        """Starts a worker and offers it to the callers; gives up after :data:`MAX_FAILED_STARTS` attempts."""
        for attempt in range(MAX_FAILED_STARTS):
            pause = min(MAX_BACK_OFF, BACK_OFF * 4 ** (attempt - 1)) if attempt else 0
            if self._closed.wait(pause):
                return
            try:
                worker = _Worker(*self._arguments)
            except OSError as error:
                problem = f"a worker cannot be started: {error}; {_limit_hint(error)}"
                continue
            with self._lock:
                if self._closed.is_set():  # closed during the start: close() has not seen this worker
                    worker.kill()
                    return
                self._all.add(worker)
            if worker.await_start():
                with self._lock:
                    self._offer(worker)
                return
            problem = f"a worker did not start (exit status {worker.process.poll()}); its error is on stderr"
            self._discard(worker)
        with self._lock:
            self._missing += 1
            if self._missing >= self._size:
                self._fail_waiting(problem)

    def _offer(self, worker: _Worker) -> None:
        """Hands a worker to the first caller that still waits; called with the lock held."""
        while self._waiting:
            future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():  # False if the caller has given up
                future.set_result(worker)
                return
        self._idle.append(worker)

    def _fail_waiting(self, problem: str) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(RuntimeError(problem))

    def _release(self, worker: _Worker) -> None:
        if not worker.broken:
            with self._lock:
                if not self._closed.is_set():
                    self._offer(worker)
        else:
            self._discard(worker)
            if not self._closed.is_set():
                self._start_in_background()

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
            worker.kill()


def _limit_hint(error: OSError) -> str:
    return _LIMIT_HINTS.get(error.errno or 0, "see the system's limits on processes, files and memory")


class _Worker:
    """The pool's handle of one fork server; used by one thread at a time.

    Attributes:
        process: the fork server.
        broken: True if it can do no further task.
    """

    def __init__(self, module: str, timeout: float, memory_bytes: int):
        # SEQPACKET keeps the borders of messages and, unlike DGRAM, reports that the other end is closed.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", module, str(theirs.fileno()), str(timeout), str(memory_bytes)]
            try:
                self.process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # one killpg reaches the server and its fork, and Ctrl-C neither
                )
            except OSError:
                self._socket.close()
                raise
        self.broken = True
        self._timeout, self._task = timeout, 0

    def await_start(self) -> bool:
        """Waits until the worker has imported its modules; returns False if it failed to."""
        self.broken = self._receive(START_SECONDS) is None
        return not self.broken

    def run(self, arguments: tuple[Any, ...]) -> TaskResult:
        """Runs one task and waits for its result."""
        self._task += 1
        try:
            self._drain_messages()
            self._socket.send(json.dumps([self._task, *arguments]).encode())
        except OSError:
            self.broken = True
            return TaskResult(TaskStatus.CRASH)
        deadline = time.monotonic() + self._timeout + GRACE_SECONDS
        while (message := self._receive(deadline - time.monotonic())) is not None:
            if "died" in message:
                return TaskResult(TaskStatus.TIMEOUT if message["died"] == -signal.SIGALRM else TaskStatus.CRASH)
            if message["task"] == self._task:  # a late result of an earlier task has another number
                return TaskResult(TaskStatus.DONE, message["value"])
        self.broken = True
        return TaskResult(TaskStatus.TIMEOUT if time.monotonic() >= deadline else TaskStatus.CRASH)

    def kill(self) -> None:
        """Kills the fork server and its fork."""
        # poll() first: the id of a process that has been reaped may belong to someone else's process by now.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep: nothing more can be done
                self.process.wait(GRACE_SECONDS)
        self._socket.close()

    def _drain_messages(self) -> None:
        """Drops messages that came between tasks."""
        # The process was killed while idle and has been replaced: its "died" must not be blamed on the next task.
        self._socket.setblocking(False)
        try:
            while self._socket.recv(MAX_MESSAGE_BYTES):
                pass
        except BlockingIOError:
            pass

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """Returns the next message, None if none comes in time or the worker is gone."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            message = self._socket.recv(MAX_MESSAGE_BYTES)
        except OSError:  # includes TimeoutError
            return None
        return json.loads(message) if message else None


def serve_tasks(function: Callable[..., Any]) -> None:
    """Runs the main loop of a worker: forks a process that does tasks, and replaces it when it dies.

    A worker's module calls this once everything is imported and warm. It returns when the owner of the pool is gone.

    Args:
        function: does one task; takes and returns JSON values. An exception that it raises ends the forked process and
            counts as a crash.
    """
    descriptor, timeout, memory_bytes = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = socket.socket(fileno=descriptor)
    gc.freeze()  # the collector must not touch what is imported: its pages stay shared between server and forks
    try:
        connection.send(json.dumps({"ready": True}).encode())
        while True:
            process = os.fork()
            if process == 0:
                _run_tasks(connection, function, timeout)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status == 0:
                return
            connection.send(json.dumps({"died": status}).encode())
    except OSError:  # the owner of the pool is gone
        return


def _run_tasks(connection: socket.socket, function: Callable[..., Any], timeout: float) -> None:
    """Does tasks until the owner of the pool closes the socket; never returns."""
    status = 1
    # The default action, not a handler: a Python handler runs only between bytecodes, so a loop in C would outlive the
    # timeout, and the exception that it raises could be caught by the libraries that the task calls.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        while message := connection.recv(MAX_MESSAGE_BYTES):
            task, *arguments = json.loads(message)
            signal.setitimer(signal.ITIMER_REAL, timeout)
            value = function(*arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(json.dumps({"task": task, "value": value}).encode())
        status = 0
    finally:
        os._exit(status)  # without a traceback: the fork server reports the death
