"""Progress is a bar in a terminal and plain lines elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from verl_rsim.utils import progress
from verl_rsim.utils.progress import progress_bar, track


def test_elsewhere_a_line_now_and_then_says_how_long_it_will_take(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: 6.0 * next(clock))
    out = io.StringIO()
    with progress_bar(Console(file=out), "work", total=6, done=2) as advance:
        for _ in range(3):
            advance()
    assert out.getvalue() == "work: 4/6, 0:00:18 left\nwork: 5/6, 0:00:10 left\n"


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    with progress_bar(Console(file=out, force_terminal=True, width=80), "work", total=3) as advance:
        advance(3)
    assert "━" in out.getvalue()
    assert "3/3" in out.getvalue()


def test_tracking_changes_nothing_and_hides_no_error(capsys):
    assert list(track("abc", "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "letters: 3/3\n"
    with pytest.raises(ZeroDivisionError):
        list(track((1 / number for number in (1, 0)), "numbers", 2))


def test_bars_of_other_libraries_stay_out_of_files():
    script = (
        "from verl_rsim.utils.progress import quiet_bars; quiet_bars()\nfrom tqdm.auto import tqdm; list(tqdm([1]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
