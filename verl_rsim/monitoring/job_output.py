"""Splits the output of a job into one log file per process, and takes out the events."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from verl_rsim.monitoring import job_events

DRIVER = "driver"
"""Name of the log of the process that the command started; all other lines bear the name of a Ray process."""
TAIL_LINES = 12
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PREFIX = re.compile(r"^\((?P<name>[^()]*?) ?pid=(?P<pid>\d+)(?:, ip=(?P<ip>[\w.:]+))?\) ?")
"""Ray's prefix of a line from another process, e.g. ``(TaskRunnerV1 pid=123, ip=10.0.0.2)``."""
_ERROR = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Died|Collapsed|Interrupt)\b(?:: .*)?$")
"""The last line of a traceback."""


class JobOutput:
    """Writes each line of a job's output into the log of the process that printed it.

    Args:
        folder: folder of the logs; the logs of an earlier run in it are replaced.

    Attributes:
        names: title of each process, by process id, as far as the job has reported them.
        errors: last lines of the driver's tracebacks, in order.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict[int, str] = {}
        self.errors: list[str] = []
        self._files: dict[str, TextIO] = {}
        self._tails: dict[str, deque[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.log"):
            old.unlink()

    def split(self, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Writes all lines to their logs and yields the events among them."""
        for line in lines:
            text = _COLOUR.sub("", line.rstrip("\n"))
            prefix = _PREFIX.match(text)
            name = DRIVER
            if prefix:
                name = f"{prefix['name'] or 'ray'}-{prefix['pid']}"
                text = text[prefix.end() :]
            event = job_events.parse(text)
            if event is None:
                self._write(name, text)
                continue
            if event["kind"] == "processes":
                self.names |= {int(pid): str(title) for pid, title in event["names"].items()}
            yield event

    def _write(self, name: str, text: str) -> None:
        if name not in self._files:
            # Line by line: the logs are what remains when the command itself is killed.
            self._files[name] = (self.folder / f"{name}.log").open("w", buffering=1)
            self._tails[name] = deque(maxlen=TAIL_LINES)
        self._files[name].write(text + "\n")
        self._tails[name].append(text)
        if name == DRIVER and _ERROR.match(text):
            self.errors.append(text)

    def culprit(self) -> tuple[Path, list[str]]:
        """Returns the log that explains the end of a job, and its last lines.

        That is the log of the process that the last error names, else the driver's.
        """
        name = DRIVER
        for pid, title in self.names.items():
            if self.errors and title in self.errors[-1]:
                name = next((known for known in self._files if known.endswith(f"-{pid}")), DRIVER)
        return self.folder / f"{name}.log", list(self._tails.get(name, ()))

    def close(self) -> None:
        """Closes the logs."""
        for file in self._files.values():
            file.close()
