"""Shows a running job in a terminal: its phases with their times, and each training step.

A terminal gets a live line for the present phase and one screen a step, updated in place. Anything else (a pipe, a
file, a Slurm log) gets one line a phase of the start and one line a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.console import render

REFRESH_PER_SECOND = 4
STEP_PHASES = ("rollout", "log-probs", "update", "weight sync", "metrics")
"""Phases that repeat in every training step; without a terminal they get no line of their own."""


class JobTerminal:
    """Prints the events of a job.

    Args:
        console: the console of the command.
        clock: returns seconds; replaced in tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console, self._clock = console, clock
        self._start = self._phase_start = clock()
        self._phase = ""
        self._screen: RenderableType = Text("")
        self._steps = 0
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                console=console, get_renderable=self._renderable, refresh_per_second=REFRESH_PER_SECOND, transient=True
            )

    def __enter__(self) -> JobTerminal:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_phase()
        if self._live:
            self._live.stop()
            self.console.print(self._screen)

    @property
    def phase(self) -> str:
        """The present phase."""
        return self._phase

    def begin_phase(self, name: str) -> None:
        """Shows that a phase begins, and how long the one before took."""
        if name == self._phase:
            return
        self._end_phase()
        self._phase, self._phase_start = name, self._clock()

    def _end_phase(self) -> None:
        repeated = self._phase.startswith(STEP_PHASES)
        if self._phase and not repeated:
            self._print(f"{self._phase} … {self._clock() - self._phase_start:.0f} s")
        self._phase = ""

    def show(self, event: dict[str, Any]) -> None:
        """Shows an event of the job."""
        if event["kind"] == "phase":
            role = event.get("role", "")
            self.begin_phase(f"{event['name']} ({role})" if role else str(event["name"]))
        elif event["kind"] == "warning":
            self._print(str(event["text"]), style="yellow")
        elif event["kind"] == "step":
            self._show_step(event["metrics"], int(event["step"]), int(event.get("total_steps", 0)))

    def _show_step(self, metrics: dict[str, float], step: int, total_steps: int) -> None:
        self._steps = max(self._steps, total_steps)
        for line in _step_lines(metrics, step, self._steps):
            self._print(line)
        if "rsim/turns" in metrics:
            elapsed = self._clock() - self._start
            self._screen = render(metrics, step, self._steps, elapsed / step * (self._steps - step))

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _renderable(self) -> RenderableType:
        now = self._clock()
        line = f"{self._phase or 'starting'} … {now - self._phase_start:.0f} s   (in all {now - self._start:.0f} s)"
        return Group(self._screen, Text(line, style="dim"))


def _step_lines(metrics: dict[str, float], step: int, total_steps: int) -> list[str]:
    """Returns a training step as one line, and a validation as another."""
    lines = []
    if "rsim/turns" in metrics:
        parts = [f"step {step}/{total_steps}" if total_steps else f"step {step}"]
        parts += [f"accuracy {metrics['reasoner/acc']:.0%}", f"planner's reward {metrics['planner/reward']:.2f}"]
        parts += [f"turns {metrics['rsim/turns']:.1f}", f"most used {_most_used(metrics)}"]
        if "timing_s/step" in metrics:
            parts.append(f"{metrics['timing_s/step']:.0f} s")
        lines.append(", ".join(parts))
    if "val-reasoner/acc" in metrics:
        planner_reward = metrics.get("val-planner/reward", float("nan"))
        lines.append(
            f"validation at step {step}: accuracy {metrics['val-reasoner/acc']:.0%}, "
            f"planner's reward {planner_reward:.2f}"
        )
    return lines


def _most_used(metrics: dict[str, float]) -> str:
    """Returns the most frequent strategy and its share of the turns."""
    shares = {strategy.title: metrics.get(f"strategy/{strategy.name}", 0.0) for strategy in STRATEGIES}
    title = max(shares, key=lambda name: shares[name])
    return f"{title} {shares[title]:.0%}"
