"""A terminal shows phases with their times and one line a training step."""

from __future__ import annotations

import io
import re

from rich.console import Console

from verl_rsim.monitoring.job_terminal import JobTerminal

STEP = {
    "rsim/turns": 2.5,
    "reasoner/acc": 0.25,
    "planner/reward": 0.5,
    "strategy/validation": 0.6,
    "strategy/termination": 0.4,
    "timing_s/step": 12.4,
}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def shown(*events: dict, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
    with JobTerminal(console, Clock()) as screen:
        screen.begin_phase("starting Ray and verl")
        for event in events:
            screen.show(event)
    return console.file.getvalue()


def test_a_pipe_gets_a_line_a_phase_of_the_start_and_a_line_a_step():
    text = shown(
        {"kind": "phase", "name": "loading the models", "role": ""},
        {"kind": "phase", "name": "rollout", "role": ""},
        {"kind": "phase", "name": "update", "role": "planner"},
        {"kind": "warning", "text": "WARNING: step 1: alarm"},
        {"kind": "step", "step": 1, "total_steps": 10, "metrics": STEP | {"val-reasoner/acc": 0.5}},
        {"kind": "phase", "name": "validation", "role": ""},
    )
    lines = text.splitlines()
    assert lines[0].startswith("starting Ray and verl … ")
    assert lines[1].startswith("loading the models … ")
    assert lines[2] == "WARNING: step 1: alarm"
    assert lines[3] == "step 1/10, accuracy 25%, planner's reward 0.50, turns 2.5, most used validation 60%, 12 s"
    assert lines[4].startswith("validation at step 1: accuracy 50%")
    assert lines[5].startswith("validation … ")
    assert len(lines) == 6, "the phases of a training step have no lines of their own"


def test_ten_steps_in_a_pipe_stay_under_thirty_lines():
    steps = [{"kind": "step", "step": step, "total_steps": 10, "metrics": STEP} for step in range(1, 11)]
    assert len(shown(*steps).splitlines()) < 30


def test_a_terminal_ends_with_the_last_steps_screen():
    text = shown({"kind": "step", "step": 1, "total_steps": 10, "metrics": STEP}, terminal=True)
    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)
    assert "step 1 of 10" in text
    assert "deliberative thinking" in text


def test_unknown_events_are_ignored():
    assert shown({"kind": "processes", "names": {}}).startswith("starting Ray")
