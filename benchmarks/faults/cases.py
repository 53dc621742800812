"""The matrix: who fails, how, while the job does what, and what the error must say."""

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
"""Of a step, as the watchdog calls them; log-prob and update are the reasoner's."""
PLANNERS = {"planner's log-prob": "planner's log-probs", "planner's update": "planner's update"}
"""Likewise, those in which the planner's worker is hit alone."""
WORKERS = {
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
"""What the error calls them (a regular expression); nothing is said where the process that would say it is gone."""
SIGNALS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "terminate": signal.SIGTERM,
    "interrupt": signal.SIGINT,
}
INSIDE = {
    "reward raises": ("reward: raises", "the reward.*this reward function is broken"),
    "reward never returns": ("reward: never returns", "wait for the reward"),
    "reward is NaN": ("reward: NaN", "the reward.*nan"),
    "server writes no words": ("server: token ids of no word", "server's turn.*1000000"),
    "server writes NaN": ("server: log-probs that are NaN", "server's turn.*nan"),
    "server does not answer": ("server: no answer", "wait for the .*server"),
    "NaN weight": ("worker: a weight that is NaN", "not_finite"),
    "full disk": ("", "could not be saved, with"),
}
"""What goes wrong without a signal, as :mod:`inside` calls it, and what the error says."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault.

    Attributes:
        fault: one of ``SIGNALS`` with a process of ``WORKERS`` after it, or one of ``INSIDE``.
        phase: one of ``PHASES`` or ``PLANNERS``.
        thaw: seconds after which a stopped process goes on; the job must go on, too.
    """

    fault: str
    phase: str
    thaw: float | None = None

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"{self.fault}, {self.phase}" + (", thawed" if self.thaw else "")

    @property
    def watched(self) -> str:
        """Its phase, as the watchdog calls it."""
        return (PHASES | PLANNERS)[self.phase]

    @property
    def signal(self) -> signal.Signals | None:
        """What is sent, if anything is."""
        return SIGNALS.get(self.fault.split()[0])

    @property
    def victim(self) -> str:
        """Whom it is sent to."""
        return self.fault.split(maxsplit=1)[1]

    @property
    def says(self) -> str:
        """What the error must say."""
        return WORKERS[self.victim] if self.signal else INSIDE[self.fault][1]


CASES = [
    *(Case(f"{what} {who}", phase) for what in ("kill", "stop") for who in WORKERS for phase in PHASES),
    *(Case(f"{what} planner worker", phase) for what in ("kill", "stop") for phase in PLANNERS),
    *(Case(f"{what} driver", phase) for what in ("terminate", "interrupt") for phase in PHASES),
    *(Case(fault, "rollout") for fault in INSIDE if fault != "full disk"),
    Case("full disk", "save"),
    Case("stop reasoner engine", "rollout", thaw=10),
]
