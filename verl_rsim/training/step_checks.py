"""Checks a training step: the share of its episodes that failed, and the alarms on its metrics."""

from __future__ import annotations

from typing import Any, Protocol

from verl_rsim.monitoring.alarms import AlarmAction, AlarmMonitor
from verl_rsim.monitoring.job_events import warn
from verl_rsim.utils.errors import JobDied, TrainingCollapsed


class FailureSource(Protocol):
    """Knows which process failed the episodes; :class:`verl_rsim.monitoring.watchdog.watchdog.Watchdog` is one."""

    def check(self) -> None:
        """Raises JobDied if a process is gone."""

    def failures(self) -> str:
        """Returns what failed the episodes, as text to append to a message; "" if nothing is known."""


def check_failed_share(
    finished: int, expected: int, step: int, max_share: float, source: FailureSource, kind: str = ""
) -> int:
    """Returns the number of episodes that are missing, after warning about them.

    Args:
        finished, expected: numbers of episodes.
        step: the training step.
        max_share: ``rsim.max_failed_share``.
        source: names the process that failed them.
        kind: put before "episodes" in messages, e.g. "validation ".

    Raises:
        JobDied: more episodes failed than ``max_share`` allows.
    """
    failed = expected - finished
    if not failed:
        return 0
    message = f"{failed} of {expected} {kind}episodes of step {step} failed"
    if failed <= max_share * expected:
        warn(f"{message}{source.failures()}; the tracebacks are in the log above")
        return failed
    source.check()  # raises a better error if a process is gone
    raise JobDied(
        f"{message}, more than rsim.max_failed_share={max_share} allows"
        f"{source.failures()}; the tracebacks are in the log above"
    )


def raise_alarms(monitor: AlarmMonitor, metrics: dict[str, float], step: int, logger: Any) -> bool:
    """Checks the metrics of a training step and acts on the alarms that are on.

    Args:
        monitor: the alarms.
        metrics: the step's metrics; gets ``alarm/{name}``.
        step: number of the training step.
        logger: verl's ``Tracking``; logs the step before the job is stopped.

    Returns:
        True if an alarm asks for a checkpoint at the end of the step.

    Raises:
        TrainingCollapsed: an alarm is on whose action is stop.
    """
    alerts = monitor.check(metrics)
    for alert in alerts:
        if alert.is_new:
            warn(f"step {step}: {alert}")
    stops = [alert for alert in alerts if alert.config.action == AlarmAction.STOP.value]
    if stops:
        logger.log(data=metrics, step=step)
        reasons = " ".join(str(alert) for alert in stops)
        raise TrainingCollapsed(f"step {step}: {reasons} Nothing of this step was saved.")
    return any(alert.is_new and alert.config.action == AlarmAction.SAVE.value for alert in alerts)
