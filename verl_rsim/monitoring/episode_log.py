"""Files of episode records: gzipped JSON lines, appended a batch at a time, whole or not at all. See docs/episodes.md.

A batch is one gzip member, written and synced at once: a kill leaves at most a cut-off last member, which readers
leave out. A start of a job never touches the files of an earlier one.
"""

from __future__ import annotations

import errno
import gzip
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.core.episode_record import EpisodeRecord, from_json, to_json
from verl_rsim.utils.errors import DataError

FOLDER = "episodes"
"""The log's folder in the folder of a run."""

_NAME = re.compile(r"(?P<start>\d+)-from-step-(?P<step>\d+)\.(?P<part>\d+)\.jsonl\.gz")
_BLOCK = 1 << 18

logger = logging.getLogger(__name__)


class EpisodeLog:
    """Appends records to the files of one start of a job.

    Args:
        folder: made when needed.
        from_step: the step that the job resumed from, 0 for a new one.
        max_file_mb: size in MiB at which a new file is begun; a single batch may be larger.
        goes_on: continues what the last start wrote, in a file of its own, instead of beginning anew.
    """

    def __init__(self, folder: Path, from_step: int = 0, max_file_mb: float = 64, *, goes_on: bool = False):
        self.folder, self.from_step, self._max_bytes = folder, from_step, int(max_file_mb * 2**20)
        self._start: int | None = None
        self._goes_on = goes_on
        self._part = 0
        self._warned = False

    def append(self, records: Iterable[EpisodeRecord]) -> bool:
        """Write a batch; a disk that refuses is reported once in the log, and the batch is lost.

        Returns:
            Whether the batch is on the disk.
        """
        text = "".join(to_json(record) + "\n" for record in records)
        if not text:
            return True
        try:
            self._append(gzip.compress(text.encode("utf-8", "replace"), compresslevel=6))
        except OSError as error:
            if not self._warned:
                logger.warning("Episodes are not logged for now, training goes on: %s: %s", self.folder, error)
            self._warned = True
            return False
        return True

    def _append(self, member: bytes) -> None:
        if self._start is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._begin(log_files(self.folder))
        path = self._path()
        size = path.stat().st_size if path.exists() else 0
        if size and size + len(member) > self._max_bytes:
            self._part += 1
        descriptor = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._write(descriptor, member)
        finally:
            os.close(descriptor)

    def _begin(self, before: list[LogFile]) -> None:
        last = before[-1] if before else None
        if last and self._goes_on:
            self._start, self._part = last.start, last.part + 1
        else:
            self._start = last.start + 1 if last else 1

    def _write(self, descriptor: int, member: bytes) -> None:
        before = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, member) < len(member):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            try:
                os.ftruncate(descriptor, before)
            except OSError:
                self._part += 1  # what was written stays the end of its file, where readers leave it out
            raise

    def _path(self) -> Path:
        return self.folder / f"{self._start:03d}-from-step-{self.from_step}.{self._part:03d}.jsonl.gz"


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """One file of a log: the number of the job's start, its part, the step it resumed from."""

    start: int
    part: int
    from_step: int
    path: Path


def log_files(folder: Path) -> list[LogFile]:
    """The files of a log in the order of writing."""
    named = ((path, _NAME.fullmatch(path.name)) for path in folder.glob("*.jsonl.gz"))
    return sorted(LogFile(int(m["start"]), int(m["part"]), int(m["step"]), path) for path, m in named if m)


def read_log(path: Path, advance: Callable[[int], object] = lambda read: None) -> Iterator[EpisodeRecord]:
    """Stream the records of a file, or of a run: what its last start built on, and that start's own.

    Args:
        path: a file, the folder of a run, or its folder ``episodes``.
        advance: is told the bytes read since the last call.

    Raises:
        DataError: nothing there, a file damaged before its end, or a record of a newer schema.
    """
    for source in sources(path):
        for record in read_file(source.path, advance):
            if source.counts(record):
                yield record


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a run, and what of it counts.

    Attributes:
        last_step: None: all.
        validated_again: a later start began with its own validation at that step.
    """

    path: Path
    last_step: int | None = None
    validated_again: bool = False

    def counts(self, record: EpisodeRecord) -> bool:
        """Whether a record of the file is one of the run's."""
        if self.last_step is None or record.step < self.last_step:
            return True
        return record.step == self.last_step and not (self.validated_again and record.kind == "validation")


def sources(path: Path) -> list[Source]:
    """The files to read.

    A start that resumed from step *s* takes over the steps up to *s* of those before it; one from step 0, nothing.

    Raises:
        DataError: there is no log.
    """
    if path.is_file():
        return [Source(path)]
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    files = log_files(folder)
    if not files:
        raise DataError(f"{path}: holds no episodes; train with rsim.episode_log.enabled=true, or name a file")
    resumed = {file.start: file.from_step for file in files}
    validated = {file.start for file in files if file.part == 0 and file.from_step and _validates_first(file)}
    found: list[Source] = []
    for file in files:
        later = [start for start in resumed if start > file.start]
        last_step = min((resumed[start] for start in later), default=None)
        if last_step != 0:
            again = any(resumed[start] == last_step for start in validated.intersection(later))
            found.append(Source(file.path, last_step, again))
    return found


def _validates_first(file: LogFile) -> bool:
    """Whether a start validated what it resumed from."""
    first = next(read_file(file.path), None)
    return first is not None and (first.kind, first.step) == ("validation", file.from_step)


def read_file(path: Path, advance: Callable[[int], object] = lambda read: None) -> Iterator[EpisodeRecord]:
    """Stream the records of one file, gzipped or not; a last line that was cut off is left out.

    Raises:
        DataError: damaged before its end, or a record of a newer schema.
    """
    number = 0
    rest = b""
    for text in _texts(path, advance):
        *lines, rest = (rest + text).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                try:
                    yield from_json(line)
                except DataError as error:
                    raise DataError(f"{path}, line {number}: {error}") from None


def _texts(path: Path, advance: Callable[[int], object]) -> Iterator[bytes]:
    """The file's content in pieces, decompressed as far as it goes."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        member = zlib.decompressobj(wbits=31)
        while block := file.read(_BLOCK):
            advance(len(block))
            if not zipped:
                yield block
            while zipped and block:
                try:
                    yield member.decompress(block)
                except zlib.error as error:
                    raise DataError(f"{path}: damaged before byte {file.tell()} ({error})") from None
                block = member.unused_data
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
