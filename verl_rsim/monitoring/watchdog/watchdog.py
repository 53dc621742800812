"""Ends a job that can no longer make progress, with an error that names the cause.

Checks the job's Ray actors (workers, servers, agent loop, reward, TransferQueue), the vLLM engines behind the servers,
and the time since the current phase began. Actors are checked once the job is set up.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle

from verl_rsim.config.schema import WatchdogConfig
from verl_rsim.monitoring.watchdog import diagnosis, process_heartbeat
from verl_rsim.utils.errors import JobDied, RsimError

HEARTBEAT_GRACE_SECONDS = 10.0
"""Seconds by which the heartbeat's timeout exceeds the watchdog's, whose checks take time between two heartbeats."""

Result = TypeVar("Result")


def _engine_error(server: Any) -> str | None:
    """Returns the error of a server's vLLM engine, or None; runs inside the server's actor."""
    engine = getattr(server, "engine", None)
    return "its vLLM engine died" if engine is not None and getattr(engine, "errored", False) else None


def job_actors() -> dict[str, dict[str, Any]]:
    """Returns Ray's records of this job's actors, by actor id."""
    job = ray.get_runtime_context().get_job_id()
    table = ray._private.state.actors()
    return {key: actor for key, actor in table.items() if actor.get("JobID") == job}


def ended_on_purpose(cause: Any) -> bool:
    """Returns True if an actor ended by ``ray.kill``, went out of scope or exited by itself.

    A reward function may start actors and end them so.

    Args:
        cause: Ray's ``DeathCause`` of the actor.
    """
    context = getattr(cause, "actor_died_error_context", None)
    return context is not None and (
        context.reason in (context.RAY_KILL, context.OUT_OF_SCOPE, context.REF_DELETED)
        or "INTENDED_USER_EXIT" in context.error_message
    )


def actor_id(handle: ActorHandle) -> str:
    """Returns the id of an actor, as :func:`job_actors` uses it."""
    return handle._actor_id.hex()


@dataclass(frozen=True, slots=True)
class _Phase:
    """Describes a phase of the job and its timeout.

    Attributes:
        name: Name in error messages.
        key: Key of ``rsim.watchdog`` that sets the timeout.
        timeout: Longest duration, in seconds.
        start: Time when the phase began.
    """

    name: str
    key: str
    timeout: float
    start: float = field(default_factory=time.monotonic)


class Watchdog:
    """Runs a job and ends it when a process dies or a phase exceeds its timeout.

    Args:
        servers: Returns pairs of role and actor handle, one for each rollout server.
        limits: The block ``rsim.watchdog``.

    Attributes:
        actor_names: Names of actors in error messages, by actor id. Other actors go by their Ray names.
        agent_loop_workers: Workers that know what episodes are waiting for.
    """

    def __init__(self, servers: Callable[[], Iterable[tuple[str, ActorHandle]]], limits: WatchdogConfig):
        self.servers, self.limits = servers, limits
        self.actor_names: Mapping[str, str] = {}
        self.agent_loop_workers: Sequence[ActorHandle] = ()
        self._seen_alive: set[str] = set()
        self._starting = False
        self._phases: dict[str, _Phase] = {}  # by role; "" holds a phase of the whole job, and is then the only one
        self._lock = threading.Lock()  # both roles report their phases from threads of their own

    def begin_phase(self, name: str, kind: str = "", role: str = "") -> None:
        """Records that a phase begins. It ends the role's last phase, or without a role all phases.

        Args:
            name: Name in error messages.
            kind: One of :data:`verl_rsim.config.schema.PHASES`, which may have a timeout of its own.
            role: The role that begins it, if both roles learn at the same time.
        """
        timeout = None if self._starting else self.limits.phase_seconds.get(kind)
        if timeout is None:
            key, timeout = self._default_timeout()
        else:
            key = f"phase_seconds.{kind}"
        with self._lock:
            others = {each: phase for each, phase in self._phases.items() if each and role}
            self._phases = others | {role: _Phase(name, key, timeout)}

    def end_phase(self, role: str) -> None:
        """Records that a role's phase ended. After the last one the timeout starts again for the whole job."""
        with self._lock:
            last = self._phases[role]
            others = {each: phase for each, phase in self._phases.items() if each != role}
            self._phases = others or {"": _Phase(last.name, *self._default_timeout())}

    def _default_timeout(self) -> tuple[str, float]:
        """Returns the key and the seconds of the timeout for phases without one of their own."""
        key = "start_seconds" if self._starting else "stall_seconds"
        return key, getattr(self.limits, key)

    def run(self, work: Callable[[], Result], *, starting: bool = False) -> Result:
        """Runs ``work`` in a thread and returns its result or raises its error.

        Args:
            work: Function that does the work and reports its phases with :meth:`begin_phase`.
            starting: True if the work starts the job's actors: its phases may then take ``start_seconds``, and actors
                are not checked.

        Raises:
            JobDied: A process died, or a phase exceeded its timeout. The thread still runs; end the process.
        """
        self._starting = starting
        key, timeout = self._default_timeout()
        self._phases = {"": _Phase("start", key, timeout)}
        self._seen_alive = set() if starting else _alive(job_actors())
        # The job runs in the new thread and the watchdog in this one: a job that hangs can then be left behind, since a
        # daemon thread does not keep the process alive.
        future: Future[Result] = Future()
        thread = threading.Thread(target=_complete, args=(future, work), daemon=True, name="rsim-job")
        thread.start()
        with process_heartbeat.heartbeat(timeout + HEARTBEAT_GRACE_SECONDS, f"rsim.watchdog.{key}") as beat:
            while not wait([future], self.limits.poll_seconds).done:
                beat()
                self._check_timeouts()
                if not starting:
                    self.check()
        try:
            return future.result()
        except RsimError:
            raise
        except Exception:
            # The error may only be a consequence of a dead process; if so, name that process instead.
            if not starting:
                self.check()
            raise

    def _check_timeouts(self) -> None:
        """Raises JobDied if a phase exceeded its timeout."""
        for phase in self._phases.values():
            waited = time.monotonic() - phase.start
            if waited <= phase.timeout:
                continue
            parts = [f"nothing moved for {waited:.0f} s in phase {phase.name!r} (rsim.watchdog.{phase.key})"]
            for pid, name in diagnosis.stopped_processes(self._local_processes()):
                parts.append(f"{name} is stopped (process {pid}; kill -CONT {pid} lets it go on)")
            parts += diagnosis.describe_waits(self.agent_loop_workers)
            raise JobDied("; ".join(parts))

    def _current_phases(self) -> str:
        return " and ".join(repr(phase.name) for phase in self._phases.values())

    def _actor_name(self, key: str, actor: Mapping[str, Any]) -> str:
        ray_name = actor.get("Name") or str(actor.get("ActorClassName")).split(".")[-1]
        return f"{self.actor_names[key]} (actor {ray_name})" if key in self.actor_names else f"actor {ray_name}"

    def _local_processes(self) -> dict[int, str]:
        """Returns the names of the job's processes on this node, by process id."""
        node = ray.get_runtime_context().get_node_id()
        names = {os.getppid(): "Ray's raylet"}  # a raylet starts the workers of its node, this process among them
        for key, actor in job_actors().items():
            if actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == node:
                names[actor["Pid"]] = self._actor_name(key, actor)
        return names

    def check(self) -> None:
        """Checks all actors and engines.

        Raises:
            JobDied: An actor or an engine died.
        """
        for key, actor in job_actors().items():
            if actor["State"] == "ALIVE":
                self._seen_alive.add(key)  # actors may still be starting when the first step begins
            elif actor["State"] == "DEAD" and key in self._seen_alive:
                # The job never ends its own actors while it runs, so for those a death is always an error.
                if key not in self.actor_names and ended_on_purpose(actor.get("DeathCause")):
                    continue
                cause = " ".join(str(actor.get("DeathCause") or "no cause given").split())
                quoted = re.search('error_message: "([^"]*)', cause)
                cause = quoted[1] if quoted else cause
                raise JobDied(f"{self._actor_name(key, actor)} died in phase {self._current_phases()}: {cause[:500]}")
        self._check_engines()

    def failures(self) -> str:
        """Returns the most frequent errors of the batch's episodes, as the end of a sentence; "" without errors."""
        return diagnosis.describe_errors(self.agent_loop_workers)

    def _check_engines(self) -> None:
        """Raises JobDied if a server or its engine died."""
        # An engine is a process of its own: when it dies, Ray still reports the server's actor as alive.
        requests = [(role, server.__ray_call__.remote(_engine_error)) for role, server in self.servers()]
        pending = [request for _, request in requests]
        ready, _ = ray.wait(pending, num_returns=len(pending), timeout=self.limits.poll_seconds)
        for role, request in requests:
            if request not in ready:
                continue  # a busy server answers late; the timeout of the phase bounds it
            try:
                error = ray.get(request)
            except ray.exceptions.RayActorError as gone:
                raise JobDied(f"{role} server: died in phase {self._current_phases()}: {gone}") from None
            if error:
                raise JobDied(f"{role} server: {error} in phase {self._current_phases()}")


def _alive(actors: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {key for key, actor in actors.items() if actor["State"] == "ALIVE"}


def _complete(future: Future[Result], work: Callable[[], Result]) -> None:
    """Runs ``work`` and stores its result or its error in ``future``."""
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  the waiting thread raises it
        future.set_exception(error)
