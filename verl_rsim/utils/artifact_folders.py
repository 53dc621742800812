"""Folders that are whole or absent: written beside their destination, checked by a manifest, moved in one step."""

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
    """Where data, models and runs lie: ``$RSIM_HOME``, else ``.rsim`` in the current folder."""
    return Path(os.environ.get(HOME, ".rsim")).absolute()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers see the old one or the new one, even after a kill or a power cut."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def is_intact(folder: Path, source: str) -> bool:
    """Whether the folder was made from ``source`` and every file has the size and hash it was written with."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
    except (OSError, ValueError, KeyError):
        return False
    return manifest.get("source") == source and all(
        (folder / name).is_file()
        and (folder / name).stat().st_size == entry["bytes"]
        and digest(folder / name) == entry["sha256"]
        for name, entry in files.items()
    )


def _is_made(folder: Path) -> bool:
    """Whether a folder is empty or was made by :func:`build_folder`, whatever has become of it since."""
    try:
        return not any(folder.iterdir()) or "source" in json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return not folder.exists()
    except NotADirectoryError:
        return False
    except ValueError:  # a damaged manifest
        return True


@contextmanager
def only_one(folder: Path, lock: str = "lock") -> Iterator[None]:
    """Hold a folder, by a file in it, while it is worked on.

    Raises:
        RsimError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / lock).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            where = folder if lock == "lock" else folder / lock
            raise RsimError(f"{where}: another process is at work here; wait for it, or end it") from None
        yield


def build_folder(folder: Path, source: str, write: Callable[[Path], Mapping[str, Any] | None]) -> bool:
    """Make ``folder`` by calling ``write(temporary folder)``; a no-op when an intact one of this source is there.

    Args:
        folder: the destination; one made from another source, or damaged, is replaced.
        source: what it is made from and how, in words; decides whether an existing folder will do.
        write: fills the folder it is given; what it returns goes into the manifest.

    Returns:
        Whether anything was written.

    Raises:
        ConfigError: the folder holds what was not made here; it is left alone.
        RsimError: another process is making it.
    """
    if is_intact(folder, source):
        return False
    if not _is_made(folder):
        fix = f"holds files and no {MANIFEST} that says they were made here; name another folder, or empty this one"
        raise ConfigError("out", str(folder), fix)
    with only_one(folder.parent, f".{folder.name}.lock"):
        return not is_intact(folder, source) and _build(folder, source, write)


def _build(folder: Path, source: str, write: Callable[[Path], Mapping[str, Any] | None]) -> bool:
    unfinished, old = (folder.with_name(folder.name + suffix) for suffix in (".unfinished", ".old"))
    for left in (unfinished, old):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
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
        folder.rename(old)  # in one step, so that a kill leaves no part of it under its name
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return True
