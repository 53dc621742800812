"""How far a long command is: a bar with the time left in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0

Item = TypeVar("Item")


class Advance(Protocol):
    """Called with what has been done since the last call."""

    def __call__(self, done: int = 1) -> object: ...


@contextmanager
def shown(console: Console, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show the progress of ``total`` pieces of work, ``done`` of which are there already."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task(title, total=total, completed=done)
            yield lambda done=1: progress.advance(task, done)
    else:
        lines = _Lines(console, title, total, done)
        yield lines.advance
        lines.say()


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """The items, with progress on stderr; an item counts as done when the next one is asked for."""
    with shown(Console(stderr=True), title, total) as advance:
        for item in items:
            yield item
            advance()


def quiet_bars() -> None:
    """Keep other libraries' bars (tqdm's) out of files and pipes; to be called before those are imported."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


class _Lines:
    def __init__(self, console: Console, title: str, total: int, done: int):
        self.console, self.title, self.total, self.before = console, title, total, done
        self.new = 0
        self.began = self.said = time.monotonic()

    def advance(self, done: int = 1) -> None:
        self.new += done
        if time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.say()

    def say(self) -> None:
        self.said = time.monotonic()
        done = self.before + self.new
        text = f"{self.title}: {done}/{self.total}"
        if self.new and done < self.total:
            left = (self.said - self.began) / self.new * (self.total - done)
            text += f", {timedelta(seconds=round(left))} left"
        self.console.print(text, highlight=False, soft_wrap=True)
