"""How far an evaluation is: a bar with the time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Called once for each answer that is done."""

    def __call__(self) -> None: ...


@contextmanager
def shown(console: Console, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show the progress of ``total`` answers, ``done`` of which are there already."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(title, total=total, completed=done)
            yield lambda: progress.advance(task)
    else:
        lines = _Lines(console, title, total, done)
        yield lines.advance
        lines.say()


class _Lines:
    def __init__(self, console: Console, title: str, total: int, done: int):
        self.console, self.title, self.total, self.before = console, title, total, done
        self.new = 0
        self.began = self.said = time.monotonic()

    def advance(self) -> None:
        self.new += 1
        if time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.say()

    def say(self) -> None:
        self.said = time.monotonic()
        done = self.before + self.new
        text = f"{self.title}: {done}/{self.total}"
        if self.new and done < self.total:
            left = (self.said - self.began) / self.new * (self.total - done)
            text += f", {timedelta(seconds=round(left))} left"
        self.console.print(text, highlight=False)
