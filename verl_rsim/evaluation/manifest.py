"""What was evaluated and with what: written before the first record, and checked before more are added.

The block ``fixed`` is what an answer depends on; a folder takes further answers only if it is the same. The number of
questions and samples, controls and the planners named may grow (``asked``): the folder then gets what is missing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_rsim.utils.artifact_folders import MANIFEST, digest, write_atomically
from verl_rsim.utils.environment import versions
from verl_rsim.utils.errors import ConfigError, DataError

FORMAT = 1
NOUNS = {"eval": "evaluation", "transfer": "evaluation", "chain": "chain"}
"""What a folder holds, by the command that wrote it."""


def open_manifest(folder: Path, kind: str, fixed: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Write a folder's manifest, or check that the one it has is of the same evaluation.

    Args:
        kind: of :data:`NOUNS`.
        fixed: what may not change, in plain types.
        asked: what may: the latest is kept.

    Raises:
        ConfigError: the folder holds another one.
    """
    path, fixed = folder / MANIFEST, json.loads(json.dumps(fixed))
    if path.is_file():
        old = read_manifest(folder, kind)["fixed"]
        changed = [key for key in fixed if key in old and old[key] != fixed[key]]
        if changed:
            was = ", ".join(f"{key} {old[key]!r} before, {fixed[key]!r} now" for key in changed)
            raise ConfigError("out", str(folder), f"holds another {NOUNS[kind]} ({was}); choose another folder")
        fixed = {**old, **fixed}
    elif any(folder.glob("*.jsonl")):
        raise ConfigError("out", str(folder), f"holds records without {MANIFEST}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "kind": kind,
        "versions": versions(),
        "git": git_commit(),
        "fixed": fixed,
        "asked": asked,
    }
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """A folder's manifest.

    Raises:
        DataError: there is none, or one of another kind or format.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
    except OSError:
        raise DataError(f"{folder}: has no {MANIFEST}; name a folder that verl-rsim eval or transfer wrote") from None
    except ValueError:
        raise DataError(f"{folder / MANIFEST}: is damaged") from None
    if not isinstance(content, dict) or content.get("kind") not in ((kind,) if kind else ("eval", "transfer")):
        raise DataError(f"{folder / MANIFEST}: is not of verl-rsim {kind or 'eval or transfer'}")
    if content.get("format") != FORMAT:
        raise DataError(f"{folder / MANIFEST}: is of format {content.get('format')}; this version reads {FORMAT}")
    return content


def git_commit() -> str | None:
    """The commit of the current folder, "+changes" behind it if files differ; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10)
        changes = subprocess.run(
            ["git", "status", "-s", "-uno"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "") if head.returncode == 0 else None


@functools.lru_cache
def weights_digest(folder: Path) -> str:
    """One SHA-256 over a model folder's files, by name; the weights are read once a process."""
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".json", ".jinja", ".model")
    )
    lines = [f"{path.name} {digest(path)}" for path in files if path.name != MANIFEST]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
