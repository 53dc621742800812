"""Reports the phases of a job to the watchdog, which bounds how long each may take, and to the user's terminal."""

from __future__ import annotations

from collections.abc import Callable

from verl_rsim.monitoring import job_events
from verl_rsim.monitoring.watchdog.watchdog import Watchdog

_TITLES = {"log_probs": "log-probs", "weight_sync": "weight sync"}
"""Names of phases in messages, where they are not those of the configuration."""


class PhaseReporter:
    """Reports the phases of a job's training steps.

    Args:
        watchdog: bounds the phases and names them in its errors.
        current_step: returns the number of the current training step.
    """

    def __init__(self, watchdog: Watchdog, current_step: Callable[[], int]):
        self._watchdog, self._current_step = watchdog, current_step

    def start(self, phase: str) -> None:
        """Reports a phase of the job's start to the terminal; the watchdog bounds the start as a whole."""
        job_events.emit("phase", name=phase, role="")

    def begin(self, phase: str, role: str = "") -> None:
        """Reports that a phase begins.

        Args:
            phase: one of :data:`verl_rsim.config.schema.PHASES`.
            role: the role whose phase it is, if the roles may be in different ones; "" for the whole job's.
        """
        owner = f"{role}'s " if role else ""
        title = _TITLES.get(phase, phase)
        self._watchdog.begin_phase(f"step {self._current_step()}: {owner}{title}", phase, role)
        job_events.emit("phase", name=title, role=role)

    def done(self, role: str) -> None:
        """Reports that a role has finished its part of the training step."""
        self._watchdog.end_phase(role)
