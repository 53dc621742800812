"""Reports the progress of a long command: a bar with the time left in a terminal, plain lines elsewhere."""

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
    """Type of the function that counts items completed since its last call."""

    def __call__(self, done: int = 1) -> object: ...


@contextmanager
def progress_bar(console: Console, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Shows progress over ``total`` items while the context is open; yields the function that advances it.

    Args:
        done: items that were completed before, e.g. by an earlier run; they do not count for the time left.
    """
    if not console.is_terminal:
        lines = _ProgressLines(console, title, total, done)
        yield lines.advance
        lines.print_line()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(title, total=total, completed=done)

        def advance(done: int = 1) -> None:
            progress.advance(task, done)

        yield advance


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yields the items and shows progress on stderr; an item counts as done when the next one is requested."""
    with progress_bar(Console(stderr=True), title, total) as advance:
        for item in items:
            yield item
            advance()


def quiet_bars() -> None:
    """Keeps tqdm's bars out of files and pipes. Must run before tqdm is imported, which reads the variable once."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


class _ProgressLines:
    """Prints a line with the count and the time left, at most one per :data:`SECONDS_BETWEEN_LINES`."""

    def __init__(self, console: Console, title: str, total: int, already_done: int):
        self.console, self.title, self.total, self.already_done = console, title, total, already_done
        self.newly_done = 0
        self.started = self.last_printed = time.monotonic()

    def advance(self, done: int = 1) -> None:
        self.newly_done += done
        if time.monotonic() - self.last_printed >= SECONDS_BETWEEN_LINES:
            self.print_line()

    def print_line(self) -> None:
        self.last_printed = time.monotonic()
        done = self.already_done + self.newly_done
        text = f"{self.title}: {done}/{self.total}"
        if self.newly_done and done < self.total:
            # Items of an earlier run took no time in this one, so the rate counts new items only.
            seconds_left = (self.last_printed - self.started) / self.newly_done * (self.total - done)
            text += f", {timedelta(seconds=round(seconds_left))} left"
        self.console.print(text, highlight=False, soft_wrap=True)
