"""A job's output is split into one log a process, and its events are taken out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verl_rsim.monitoring import job_events
from verl_rsim.monitoring.job_output import JobOutput

RAY = "\x1b[36m(WorkerDict pid=7, ip=10.0.0.2)\x1b[0m "


def event(**fields) -> str:
    return job_events.MARK + json.dumps(fields) + "\n"


@pytest.fixture
def output(tmp_path: Path):
    output = JobOutput(tmp_path / "logs")
    yield output
    output.close()


def logs(output: JobOutput) -> dict[str, str]:
    output.close()
    return {path.name: path.read_text() for path in output.folder.iterdir()}


def test_each_process_has_a_log_without_prefix_and_colour(output):
    lines = ["\x1b[31mplain\x1b[0m\n", f"{RAY}from a worker\n", f"{RAY}  indented\n", "(pid=9) unnamed\n", "(a) text\n"]
    assert list(output.split(lines)) == []
    assert logs(output) == {
        "driver.log": "plain\n(a) text\n",
        "WorkerDict-7.log": "from a worker\n  indented\n",
        "ray-9.log": "unnamed\n",
    }


def test_events_are_yielded_and_not_logged(output):
    lines = [f"{RAY}{event(kind='phase', name='rollout')}", "text\n", "@rsim-event@ {broken\n", event(other=1)]
    assert list(output.split(lines)) == [{"kind": "phase", "name": "rollout"}]
    assert logs(output) == {"driver.log": 'text\n@rsim-event@ {broken\n@rsim-event@ {"other": 1}\n'}


def test_the_logs_of_the_run_before_are_gone(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/old-1.log").write_text("old")
    assert logs(JobOutput(tmp_path / "logs")) == {}


def test_a_job_that_died_is_explained_by_the_log_of_the_process_that_its_error_names(output):
    names = event(kind="processes", names={"7": "planner worker 0"})
    error = "verl_rsim.utils.errors.JobDied: planner worker 0 (actor WorkerDict) died in phase 'step 1: update'"
    list(
        output.split([names, *(f"{RAY}line {number}\n" for number in range(20)), "Traceback\n", f"{error}\n", "bye\n"])
    )
    path, tail = output.culprit()
    assert (path.name, tail[-1], len(tail)) == ("WorkerDict-7.log", "line 19", 12)
    assert output.errors == [error]


def test_without_a_named_process_the_drivers_log_explains(output):
    list(
        output.split(["ray.exceptions.RayTaskError(ConfigError): text\n", "ValueError: bad\n", "an Error in a text\n"])
    )
    path, tail = output.culprit()
    assert (path.name, tail[-1]) == ("driver.log", "an Error in a text")
    assert output.errors == ["ValueError: bad"]


def test_events_are_printed_only_for_a_terminal_that_waits(monkeypatch, capsys):
    monkeypatch.delenv(job_events.EVENTS_VARIABLE, raising=False)
    job_events.emit("phase", name="rollout")
    job_events.warn("careful")
    assert capsys.readouterr().out == "WARNING: careful\n"
    monkeypatch.setenv(job_events.EVENTS_VARIABLE, "1")
    job_events.warn("careful")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "WARNING: careful"
    assert job_events.parse(shown[1]) == {"kind": "warning", "text": "WARNING: careful"}


def test_numbers_that_are_not_finite_are_left_out_of_a_step(monkeypatch, capsys):
    monkeypatch.setenv(job_events.EVENTS_VARIABLE, "1")
    job_events.EventConsole(9).log({"a": 1.0, "b": float("nan"), "c": "text"}, 3)
    assert job_events.parse(capsys.readouterr().out) == {
        "kind": "step",
        "step": 3,
        "total_steps": 9,
        "metrics": {"a": 1.0},
    }
