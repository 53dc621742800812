"""The summary on the terminal: what it shows of a run, and what it leaves out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from support.episode_records import episode

from verl_rsim.monitoring.report.report_data import ReportData
from verl_rsim.monitoring.report.stats import wilson
from verl_rsim.monitoring.report.summary import BARS, CURVE_WIDTH, print_next, print_summary, sparkline


def run_of_six_steps() -> ReportData:
    """Returns a run whose planner turns from decomposition to termination; accuracy of validation 1/4, then 3/4."""
    data = ReportData("run", [{"step": step, "reasoner/acc": step / 6, "timing_s/step": 3.0} for step in range(1, 7)])
    for step, right in ((0, 1), (6, 3)):
        for sample in range(4):
            data.add(episode("termination", step=step, sample=sample, acc=float(sample < right)))
    for step in range(1, 7):
        for sample in range(2):
            strategy = "termination" if step > 3 else "decomposition"
            data.add(episode(strategy, kind="train", step=step, sample=sample, acc=float(step > 3 or sample == 0)))
    return data


def shown(show, *arguments) -> str:
    console = Console(file=io.StringIO(), width=80)
    show(*arguments, console)
    return console.file.getvalue()


def test_accuracy_before_and_after_with_wilsons_interval():
    text = shown(print_summary, run_of_six_steps())
    for right in (1, 3):
        estimate = wilson(right, 4)
        assert f"{right / 4:.0%} ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})" in text
    assert "4 validation episodes" in text


def test_choices_of_the_first_and_the_last_third_and_how_often_they_were_right():
    rows = [line.split("│") for line in shown(print_summary, run_of_six_steps()).splitlines() if "│" in line]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:5]] for row in rows}
    assert cells["termination"] == ["0%", "100%", "100% of 6"]
    assert cells["decomposition"] == ["100%", "0%", "50% of 6"]
    assert cells["validation"] == ["0%", "0%", "-"]


def test_a_run_without_episodes_or_training_is_shown_by_what_it_has():
    assert shown(print_summary, ReportData("run", [])) == ""
    text = shown(print_summary, ReportData("run", [{"step": 1, "reasoner/acc": 0.0}, {"step": 2, "reasoner/acc": 1.0}]))
    assert "0% in step 1, 100% in 2" in text
    assert "Before and after" not in text


@pytest.mark.parametrize("count", [2, CURVE_WIDTH, CURVE_WIDTH + 1, 1000])
def test_a_curve_fits_the_line(count):
    line = sparkline([step / (count - 1) for step in range(count)])
    assert 2 <= len(line) <= CURVE_WIDTH
    assert line[0] == BARS[0]
    assert line[-1] == BARS[-1]
    assert list(line) == sorted(line)


def test_what_is_next_names_what_there_is(tmp_path: Path):
    data, run_dir = run_of_six_steps(), tmp_path / "runs/mine"
    run_dir.mkdir(parents=True)
    text = shown(print_next, run_dir, data, tmp_path)
    assert "Report:" not in text
    for command in ("export", "report"):
        assert f"verl-rsim {command} {run_dir}\n" in text
    (run_dir / "report.html").touch()
    (tmp_path / "exported/mine").mkdir(parents=True)
    (tmp_path / "data/sums").mkdir(parents=True)
    data.sources = {"sums", "elsewhere", ""}
    text = shown(print_next, run_dir, data, tmp_path)
    assert f"Report: {run_dir / 'report.html'}\n" in text
    assert f"verl-rsim replay {run_dir} --step 6\n" in text
    models = f"--planner {tmp_path / 'exported/mine/planner'} --reasoner {tmp_path / 'exported/mine/reasoner'}"
    assert f"verl-rsim serve {models}\n" in text
    assert f"verl-rsim eval {models} --data sums\n" in text
    assert "elsewhere" not in text
