"""Ends a job that can no longer go on, with an error that names the culprit, instead of waiting for ever.

Watches the job's Ray actors (workers, servers, agent loop, reward, TransferQueue), the vLLM engines behind the servers,
and the time since the last sign of progress. Watching starts once the job is set up.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

import ray

from verl_rsim.config.schema import WatchdogConfig
from verl_rsim.monitoring.watchdog import diagnosis, process_heartbeat
from verl_rsim.utils.errors import JobDied, RsimError

GRACE = 10.0
"""Seconds that the switch waits longer than the watchdog, which looks at many things between two signs of life."""


def _engine_error(server: Any) -> str | None:
    """Runs inside a server's actor: why its vLLM engine is dead, or None."""
    engine = getattr(server, "engine", None)
    return "its vLLM engine died" if engine is not None and getattr(engine, "errored", False) else None


def job_actors() -> dict[str, dict[str, Any]]:
    """The actors of this Ray job, by id."""
    job = ray.get_runtime_context().get_job_id()
    table = ray._private.state.actors()
    return {key: actor for key, actor in table.items() if actor.get("JobID") == job}


def ended_on_purpose(cause: Any) -> bool:
    """Whether an actor was let go, killed by ``ray.kill`` or left by itself, as one of a reward function's may be.

    Args:
        cause: Ray's ``DeathCause`` of it.
    """
    context = getattr(cause, "actor_died_error_context", None)
    return context is not None and (
        context.reason in (context.RAY_KILL, context.OUT_OF_SCOPE, context.REF_DELETED)
        or "INTENDED_USER_EXIT" in context.error_message
    )


def actor_id(handle: Any) -> str:
    """The id of an actor, as in :func:`job_actors`."""
    return handle._actor_id.hex()


@dataclass(frozen=True, slots=True)
class _Phase:
    """What the job does, how long it may take by which key of ``rsim.watchdog``, and since when."""

    name: str
    key: str
    seconds: float
    began: float = field(default_factory=time.monotonic)


class Watchdog:
    """Runs a job's phases under watch.

    Args:
        servers: gives the rollout servers' actor handles, by role.
        limits: the block ``rsim.watchdog``.

    Attributes:
        titles: what errors call actors, by their ids; others go by their names.
        agents: the agent loops' workers, which know whom episodes wait for.
    """

    def __init__(self, servers: Callable[[], Iterable[tuple[str, Any]]], limits: WatchdogConfig):
        self.servers, self.limits = servers, limits
        self.titles: Mapping[str, str] = {}
        self.agents: Sequence[Any] = ()
        self._seen: set[str] = set()  # actors that have lived
        self._starting = False
        self._phases: dict[str, _Phase] = {}  # by role; what both do at once is the only one, under ""
        self._lock = threading.Lock()

    def progress(self, name: str, kind: str = "", role: str = "") -> None:
        """Note that a phase begins: of a role, which ends that role's last one, or of the job, which ends all.

        Args:
            name: what errors call it.
            kind: one of :data:`verl_rsim.config.schema.PHASES`, which may have a bound of its own.
            role: whose it is, where both learn at the same time.
        """
        own = None if self._starting else self.limits.phase_seconds.get(kind)
        key, seconds = self._bound() if own is None else (f"phase_seconds.{kind}", own)
        with self._lock:
            others = {each: phase for each, phase in self._phases.items() if each and role}
            self._phases = others | {role: _Phase(name, key, seconds)}

    def done(self, role: str) -> None:
        """Note that a role's phase ended; another begins when all have."""
        with self._lock:
            last = self._phases[role]
            others = {each: phase for each, phase in self._phases.items() if each != role}
            self._phases = others or {"": _Phase(last.name, *self._bound())}

    def _bound(self) -> tuple[str, float]:
        """The key of a phase that has no bound of its own, and its seconds."""
        key = "start_seconds" if self._starting else "stall_seconds"
        return key, getattr(self.limits, key)

    def run(self, work: Callable[[], Any], *, starting: bool = False) -> Any:
        """Do ``work`` in a thread of its own; return its result or raise its error.

        Args:
            work: begins phases.
            starting: its phases may take ``start_seconds``, and it starts the actors that are watched later.

        Raises:
            JobDied: a process died or nothing moved for too long. The thread is left behind; end the process.
        """
        self._starting = starting
        key, bound = self._bound()
        self._phases = {"": _Phase("start", key, bound)}
        self._seen = set() if starting else {key for key, actor in job_actors().items() if actor["State"] == "ALIVE"}
        future: Future = Future()
        thread = threading.Thread(target=_complete, args=(future, work), daemon=True, name="rsim-job")
        thread.start()
        with process_heartbeat.switch(bound + GRACE, f"rsim.watchdog.{key}") as alive:
            while not wait([future], self.limits.poll_seconds).done:
                alive()
                self._check_stall()
                if not starting:
                    self.check()
        try:
            return future.result()
        except RsimError:
            raise
        except Exception:
            if not starting:
                self.check()  # of a process that is gone, whoever asked it for something says less
            raise

    def _check_stall(self) -> None:
        for phase in self._phases.values():
            if (waited := time.monotonic() - phase.began) <= phase.seconds:
                continue
            said = f"nothing moved for {waited:.0f} s in phase {phase.name!r} (rsim.watchdog.{phase.key})"
            stopped = (
                f"{who} is stopped (process {pid}; kill -CONT {pid} lets it go on)"
                for pid, who in diagnosis.stopped(self._processes())
            )
            raise JobDied("; ".join([said, *stopped, *diagnosis.waited_for(self.agents)]))

    def _doing(self) -> str:
        return " and ".join(repr(phase.name) for phase in self._phases.values())

    def _title(self, key: str, actor: Mapping[str, Any]) -> str:
        name = actor.get("Name") or str(actor.get("ActorClassName")).split(".")[-1]
        return f"{self.titles[key]} (actor {name})" if key in self.titles else f"actor {name}"

    def _processes(self) -> dict[int, str]:
        """What runs on this node for the job, by process id."""
        here, alive = ray.get_runtime_context().get_node_id(), job_actors().items()
        actors = {
            actor["Pid"]: self._title(key, actor)
            for key, actor in alive
            if actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == here
        }
        return actors | {os.getppid(): "Ray's raylet"}

    def check(self) -> None:
        """Look at all actors and engines.

        Raises:
            JobDied: one is gone.
        """
        for key, actor in job_actors().items():
            if actor["State"] == "ALIVE":
                self._seen.add(key)  # one may still be starting when the first step begins
            elif actor["State"] == "DEAD" and key in self._seen:
                if key not in self.titles and ended_on_purpose(actor.get("DeathCause")):
                    continue
                cause = " ".join(str(actor.get("DeathCause") or "no cause given").split())
                told = re.search('error_message: "([^"]*)', cause)
                cause = told[1] if told else cause
                raise JobDied(f"{self._title(key, actor)} died in phase {self._doing()}: {cause[:500]}")
        self._check_engines()

    def failures(self) -> str:
        """What failed the batch's episodes, as far as it is known."""
        return diagnosis.failures(self.agents)

    def _check_engines(self) -> None:
        asked = [(role, server.__ray_call__.remote(_engine_error)) for role, server in self.servers()]
        ready, _ = ray.wait([answer for _, answer in asked], num_returns=len(asked), timeout=self.limits.poll_seconds)
        for role, answer in asked:
            if answer not in ready:
                continue  # busy; the stall limit bounds how long
            try:
                error = ray.get(answer)
            except ray.exceptions.RayActorError as gone:
                raise JobDied(f"{role} server: died in phase {self._doing()}: {gone}") from None
            if error:
                raise JobDied(f"{role} server: {error} in phase {self._doing()}")


def _complete(future: Future, work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  handed to the thread that waits
        future.set_exception(error)
