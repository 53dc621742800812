"""Reports the phases of a training step to the watchdog, which bounds how long each may take."""

from __future__ import annotations

from collections.abc import Callable

from verl_rsim.monitoring.watchdog.watchdog import Watchdog


class PhaseReporter:
    """Reports the phases of a job's training steps.

    Args:
        watchdog: bounds the phases and names them in its errors.
        current_step: returns the number of the current training step.
    """

    def __init__(self, watchdog: Watchdog, current_step: Callable[[], int]):
        self._watchdog, self._current_step = watchdog, current_step

    def begin(self, phase: str, role: str = "") -> None:
        """Reports that a phase begins.

        Args:
            phase: its name, e.g. "weight sync"; with underscores one of :data:`verl_rsim.config.schema.PHASES`.
            role: the role whose phase it is, if the roles may be in different ones; "" for the whole job's.
        """
        owner = f"{role}'s " if role else ""
        key = phase.replace(" ", "_").replace("-", "_")
        self._watchdog.begin_phase(f"step {self._current_step()}: {owner}{phase}", key, role)

    def done(self, role: str) -> None:
        """Reports that a role has finished its part of the training step."""
        self._watchdog.end_phase(role)
