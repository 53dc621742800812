"""Builds folders that are either complete or absent.

A folder is written beside its destination, described by a manifest with the size and hash of each file, and moved into
place in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verl_rsim.utils.errors import ConfigError, RsimError

MANIFEST = "manifest.json"
HOME = "RSIM_HOME"


def home() -> Path:
    """Returns the folder for data, models and runs: ``$RSIM_HOME``, else ``.rsim`` in the current folder."""
    return Path(os.environ.get(HOME, ".rsim")).absolute()


def digest(path: Path) -> str:
    """Returns the SHA-256 hash of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that readers see either the old or the new content, even after a kill or a power cut."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        # Without fsync a power cut may persist the rename before the data and leave an empty file under the final name.
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def is_intact(folder: Path, source: str) -> bool:
    """Returns True if the folder was built from ``source`` and each file still has its recorded size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
    except (OSError, ValueError, KeyError):
        return False
    if manifest.get("source") != source:
        return False
    return all(_matches(folder / name, entry) for name, entry in files.items())


def _matches(path: Path, entry: Mapping[str, Any]) -> bool:
    """Returns True if a file has the size and hash of its manifest entry; the cheap size is compared first."""
    return path.is_file() and path.stat().st_size == entry["bytes"] and digest(path) == entry["sha256"]


def _may_replace(folder: Path) -> bool:
    """Returns True if the folder is absent, is empty, or was built by :func:`build_folder`, intact or not."""
    try:
        return not any(folder.iterdir()) or "source" in json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return not folder.exists()
    except NotADirectoryError:
        return False
    except ValueError:  # a damaged manifest still shows that the folder was built here
        return True


@contextmanager
def locked_folder(folder: Path, lock: str = "lock") -> Iterator[None]:
    """Holds an exclusive lock on a folder while the context is open; creates the folder if it is absent.

    Args:
        lock: name of the lock file inside the folder.

    Raises:
        RsimError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The lock file is never deleted: a process that waits on a deleted file would lock another file than later ones.
    # The kernel releases the lock when its process dies, so a kill leaves nothing to clean up.
    with (folder / lock).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            locked = folder if lock == "lock" else folder / lock
            raise RsimError(f"{locked}: another process is using this folder; wait until it ends, or stop it") from None
        yield


def build_folder(folder: Path, source: str, write: Callable[[Path], Mapping[str, Any] | None]) -> bool:
    """Builds ``folder`` by calling ``write(temporary folder)``, unless an intact one from the same source exists.

    Args:
        folder: the destination. A folder built from another source, or a damaged one, is replaced.
        source: describes the inputs and the procedure; an existing folder is reused only if its source is equal.
        write: fills the folder that it is given; the mapping that it returns is added to the manifest.

    Returns:
        True if the folder was written, False if an intact one was reused.

    Raises:
        ConfigError: the folder holds files that were not built here; they are left alone.
        RsimError: another process is building the folder.
    """
    if is_intact(folder, source):
        return False
    if not _may_replace(folder):
        fix = f"holds files that verl-rsim did not build (no {MANIFEST}); name another folder, or empty this one"
        raise ConfigError("out", str(folder), fix)
    with locked_folder(folder.parent, f".{folder.name}.lock"):
        # Another process may have finished the same folder between the first check and the lock.
        if is_intact(folder, source):
            return False
        _build(folder, source, write)
        return True


def _build(folder: Path, source: str, write: Callable[[Path], Mapping[str, Any] | None]) -> None:
    unfinished = folder.with_name(folder.name + ".unfinished")
    old = folder.with_name(folder.name + ".old")
    for leftover in (unfinished, old):  # from a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    details = write(unfinished) or {}
    files = {
        str(path.relative_to(unfinished)): {"bytes": path.stat().st_size, "sha256": digest(path)}
        for path in sorted(unfinished.rglob("*"))
        if path.is_file()
    }
    content = {"source": source, "files": files, **details}
    (unfinished / MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False))
    if folder.exists():
        folder.rename(old)  # one step; rmtree in place would leave half a folder under this name after a kill
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
