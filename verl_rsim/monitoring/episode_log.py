"""Writes and reads files of episode records: gzipped JSON lines, appended one batch at a time. See docs/episodes.md.

Each batch is one gzip member that is written and synced at once. A kill leaves at most one incomplete member at the
end, which readers skip. A start of a job never changes the files of an earlier start.
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

EPISODES_FOLDER = "episodes"
"""Name of the log's folder inside the folder of a run."""

_FILE_NAME = re.compile(r"(?P<start>\d+)-from-step-(?P<step>\d+)\.(?P<part>\d+)\.jsonl\.gz")
_BLOCK_BYTES = 1 << 18

logger = logging.getLogger(__name__)


class EpisodeLog:
    """Appends records to the files of one start of a job.

    Args:
        folder: Folder of the files; created with the first batch.
        from_step: The training step that the job resumed from; 0 for a new job.
        max_file_mb: Size in MiB at which a new file is begun. A single batch may be larger.
        continue_last: If True, adds files to the log's last start instead of beginning a new start.
    """

    def __init__(self, folder: Path, from_step: int = 0, max_file_mb: float = 64, *, continue_last: bool = False):
        self.folder, self.from_step, self._max_bytes = folder, from_step, int(max_file_mb * 2**20)
        self._start: int | None = None
        self._continue_last = continue_last
        self._part = 0
        self._warned = False

    def append(self, records: Iterable[EpisodeRecord]) -> bool:
        """Writes a batch. If the disk fails, drops the batch and logs a warning the first time.

        Returns:
            True if the batch is on the disk.
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
        # Opened anew for each batch, so that logging resumes once the folder or the disk is available again.
        descriptor = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._write(descriptor, member)
        finally:
            os.close(descriptor)

    def _begin(self, existing: list[LogFile]) -> None:
        """Chooses the numbers of the start and of its first part."""
        last = existing[-1] if existing else None
        if last and self._continue_last:
            self._start, self._part = last.start, last.part + 1
        else:
            self._start = last.start + 1 if last else 1

    def _write(self, descriptor: int, member: bytes) -> None:
        """Writes a whole member or, if the disk fails, nothing."""
        size = os.fstat(descriptor).st_size
        try:
            # A full disk may take a part of the data without an error.
            if os.write(descriptor, member) < len(member):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            try:
                os.ftruncate(descriptor, size)
            except OSError:
                self._part += 1  # readers skip an incomplete member only at the end of a file: write no more to it
            raise

    def _path(self) -> Path:
        return self.folder / f"{self._start:03d}-from-step-{self.from_step}.{self._part:03d}.jsonl.gz"


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """Describes one file of a log, by its name.

    Attributes:
        start: Number of the job's start.
        part: Number of the file within the start.
        from_step: The training step that the start resumed from.
        path: The file.
    """

    start: int
    part: int
    from_step: int
    path: Path


def log_files(folder: Path) -> list[LogFile]:
    """Returns the files of a log in the order in which they were written."""
    files = []
    for path in folder.glob("*.jsonl.gz"):
        match = _FILE_NAME.fullmatch(path.name)
        if match:
            files.append(LogFile(int(match["start"]), int(match["part"]), int(match["step"]), path))
    return sorted(files)


def _ignore(_bytes: int) -> None:
    """Does nothing with a progress report."""


def read_log(path: Path, advance: Callable[[int], object] = _ignore) -> Iterator[EpisodeRecord]:
    """Streams the records of a file or of a run.

    The records of a run are those of its last start and, of earlier starts, those of the training steps that the last
    one built on.

    Args:
        path: A file, the folder of a run, or its folder ``episodes``.
        advance: Function that is called with the number of bytes read since its last call.

    Raises:
        DataError: There are no files, a file is damaged before its end, or a record has a newer schema.
    """
    for source in find_sources(path):
        for record in read_file(source.path, advance):
            if source.includes(record):
                yield record


@dataclass(frozen=True, slots=True)
class Source:
    """Selects the records of one file that belong to the run.

    Attributes:
        path: The file.
        last_step: Last training step that belongs to the run; None if all do.
        validated_again: True if a later start repeated the validation of the last step.
    """

    path: Path
    last_step: int | None = None
    validated_again: bool = False

    def includes(self, record: EpisodeRecord) -> bool:
        """Returns True if a record of the file belongs to the run."""
        if self.last_step is None or record.step < self.last_step:
            return True
        return record.step == self.last_step and not (self.validated_again and record.kind == "validation")


def find_sources(path: Path) -> list[Source]:
    """Returns the files to read for a path.

    A start that resumed from step *s* keeps the steps up to *s* of earlier starts. A start from step 0 keeps nothing.

    Raises:
        DataError: There is no log.
    """
    if path.is_file():
        return [Source(path)]
    folder = path / EPISODES_FOLDER if (path / EPISODES_FOLDER).is_dir() else path
    files = log_files(folder)
    if not files:
        raise DataError(f"{path}: holds no episodes; train with rsim.episode_log.enabled=true, or name a file")
    from_steps = {file.start: file.from_step for file in files}
    validated = {file.start for file in files if file.part == 0 and file.from_step and _validates_first(file)}
    sources: list[Source] = []
    for file in files:
        later = [start for start in from_steps if start > file.start]
        last_step = min((from_steps[start] for start in later), default=None)
        if last_step != 0:
            validated_again = any(from_steps[start] == last_step for start in validated.intersection(later))
            sources.append(Source(file.path, last_step, validated_again))
    return sources


def _validates_first(file: LogFile) -> bool:
    """Returns True if a start began by validating the step that it resumed from."""
    first = next(read_file(file.path), None)
    return first is not None and (first.kind, first.step) == ("validation", file.from_step)


def read_file(path: Path, advance: Callable[[int], object] = _ignore) -> Iterator[EpisodeRecord]:
    """Streams the records of one file, gzipped or not. Skips an incomplete last line.

    Raises:
        DataError: The file is damaged before its end, or a record has a newer schema.
    """
    number = 0
    rest = b""
    for block in _blocks(path, advance):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            if line.strip():
                try:
                    yield from_json(line)
                except DataError as error:
                    raise DataError(f"{path}, line {number}: {error}") from None


def _blocks(path: Path, advance: Callable[[int], object]) -> Iterator[bytes]:
    """Yields the decompressed content of a file in blocks, up to an incomplete member at its end."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        # Uses zlib, since the module gzip raises an error at an incomplete member and then loses its complete lines.
        member = zlib.decompressobj(wbits=31)
        while block := file.read(_BLOCK_BYTES):
            advance(len(block))
            if not zipped:
                yield block
            while zipped and block:
                try:
                    yield member.decompress(block)
                except zlib.error as error:
                    raise DataError(f"{path}: damaged before byte {file.tell()} ({error})") from None
                block = member.unused_data  # the beginning of the next member, if this one is complete
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
