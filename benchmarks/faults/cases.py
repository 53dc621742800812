"""The matrix of faults: the process that fails, the way it fails, the job's phase, and the expected error."""

from __future__ import annotations

import signal
from dataclasses import dataclass

PHASES = {
    "rollout": "rollout",
    "log-prob": "reasoner's log-probs",
    "update": "reasoner's update",
    "weight sync": "weight sync",
    "validation": "validation",
    "save": "save",
}
"""Phases of a training step and the watchdog's names for them; log-prob and update are the reasoner's."""
PLANNER_PHASES = {"planner's log-prob": "planner's log-probs", "planner's update": "planner's update"}
"""Phases in which the planner's worker alone is hit, and the watchdog's names for them."""
PROCESSES = {
    "agent loop worker": "agent loop worker",
    "reward worker": "reward worker",
    "storage unit": "[Ss]torage",
    "planner server": "vllm_server_1000|planner server",
    "planner engine": "planner server: its vLLM engine|vllm_server_1000",
    "planner worker": "planner worker",
    "reasoner server": "vllm_server_0|reasoner server",
    "reasoner engine": "reasoner server: its vLLM engine|vllm_server_0",
    "reasoner worker": "reasoner worker",
    "task runner": "TaskRunner|task runner",
    "driver": "",
    "raylet": "[Rr]aylet",
}
"""Processes, and a regular expression that the error must match.

The driver's is empty: the process that would report the error is the one that is gone.
"""
SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "terminate": signal.SIGTERM,
    "interrupt": signal.SIGINT,
}
INJECTED = {
    "reward raises": ("reward: raises", "the reward.*this reward function is broken"),
    "reward never returns": ("reward: never returns", "wait for the reward"),
    "reward is NaN": ("reward: NaN", "the reward.*nan"),
    "server writes no words": ("server: token ids of no word", "server's turn.*1000000"),
    "server writes NaN": ("server: log-probs that are NaN", "server's turn.*nan"),
    "server does not answer": ("server: no answer", "wait for the .*server"),
    "NaN weight": ("worker: a weight that is NaN", "not_finite"),
    "full disk": ("", "could not be saved, with"),
}
"""Faults without a signal: the name in :mod:`job_hooks`, and a regular expression that the error must match."""


@dataclass(frozen=True, slots=True)
class Case:
    """Describes one fault.

    Attributes:
        fault: one of ``SIGNALS`` followed by one of ``PROCESSES``, or one of ``INJECTED``.
        phase: one of ``PHASES`` or ``PLANNER_PHASES``.
        resume_after: seconds after which a stopped process continues; the job must then continue, too.
    """

    fault: str
    phase: str
    resume_after: float | None = None

    @property
    def name(self) -> str:
        """Name of the case on the command line."""
        return f"{self.fault}, {self.phase}" + (", thawed" if self.resume_after else "")

    @property
    def watchdog_phase(self) -> str:
        """The watchdog's name for the phase."""
        return (PHASES | PLANNER_PHASES)[self.phase]

    @property
    def signal(self) -> signal.Signals | None:
        """Signal that is sent; None for an injected fault."""
        return SIGNALS.get(self.fault.split()[0])

    @property
    def victim(self) -> str:
        """Process that receives the signal."""
        return self.fault.split(maxsplit=1)[1]

    @property
    def expected_error(self) -> str:
        """Regular expression that the error must match."""
        return PROCESSES[self.victim] if self.signal else INJECTED[self.fault][1]


def all_cases() -> list[Case]:
    """Returns every case of the matrix, in the order in which they run."""
    cases = []
    for action in ("kill", "stop"):
        for process in PROCESSES:
            cases += [Case(f"{action} {process}", phase) for phase in PHASES]
    for action in ("kill", "stop"):
        cases += [Case(f"{action} planner worker", phase) for phase in PLANNER_PHASES]
    for action in ("terminate", "interrupt"):
        cases += [Case(f"{action} driver", phase) for phase in PHASES]
    cases += [Case(fault, "rollout") for fault in INJECTED if fault != "full disk"]
    cases.append(Case("full disk", "save"))
    cases.append(Case("stop reasoner engine", "rollout", resume_after=10))
    return cases


CASES = all_cases()
