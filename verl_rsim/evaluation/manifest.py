"""Writes and checks the manifest of an evaluation's folder, so that a folder never mixes two evaluations.

The block ``fixed`` holds everything an answer depends on; a folder takes further answers only if it is unchanged. The
block ``asked`` holds what may grow (questions, samples, controls, planners); the folder then gets what is missing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_rsim.core.policy_description import POLICY_FILE
from verl_rsim.utils.artifact_folders import MANIFEST, digest, write_atomically
from verl_rsim.utils.environment import versions
from verl_rsim.utils.errors import ConfigError, DataError

FORMAT = 1
KIND_NAMES = {"eval": "evaluation", "transfer": "evaluation", "chain": "chain"}
"""Nouns for a folder's content, by the command that wrote it; used in messages."""


def open_manifest(folder: Path, kind: str, fixed: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Writes a folder's manifest, after checking that an existing one belongs to the same evaluation.

    Args:
        folder: the folder; made if it does not exist.
        kind: a key of :data:`KIND_NAMES`.
        fixed: settings that must not change, in JSON's types.
        requested: settings that may change; written as ``asked``.

    Raises:
        ConfigError: the folder holds another evaluation or chain, or records without a manifest.
    """
    path = folder / MANIFEST
    fixed = json.loads(json.dumps(fixed))  # as it will be read again: tuples become lists
    if path.is_file():
        old = read_manifest(folder, kind)["fixed"]
        changed = [key for key in fixed if key in old and old[key] != fixed[key]]
        if changed:
            changes = ", ".join(f"{key} {old[key]!r} before, {fixed[key]!r} now" for key in changed)
            raise ConfigError(
                "out", str(folder), f"holds another {KIND_NAMES[kind]} ({changes}); choose another folder"
            )
        fixed = {**old, **fixed}  # a planner of an earlier start stays: its answers are still in the folder
    elif any(folder.glob("*.jsonl")):
        raise ConfigError("out", str(folder), f"holds records without {MANIFEST}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "kind": kind,
        "versions": versions(),
        "git": git_commit(),
        "fixed": fixed,
        "asked": requested,
    }
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Reads a folder's manifest.

    Args:
        folder: a folder that :func:`open_manifest` has written to.
        kind: the expected key of :data:`KIND_NAMES`; None for an evaluation or a transfer.

    Raises:
        DataError: there is no manifest, or it is damaged or of another kind or format.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
    except OSError:
        raise DataError(f"{folder}: has no {MANIFEST}; name a folder that verl-rsim eval or transfer wrote") from None
    except ValueError:
        raise DataError(f"{folder / MANIFEST}: is damaged") from None
    if not isinstance(content, dict) or content.get("kind") not in ((kind,) if kind else ("eval", "transfer")):
        raise DataError(f"{folder / MANIFEST}: was not written by verl-rsim {kind or 'eval or transfer'}")
    if content.get("format") != FORMAT:
        raise DataError(f"{folder / MANIFEST}: has format {content.get('format')}; this version reads {FORMAT}")
    return content


def git_commit() -> str | None:
    """Returns the commit of the current folder, with "+changes" if files differ; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10)
        changes = subprocess.run(
            ["git", "status", "-s", "-uno"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


@functools.lru_cache
def weights_digest(folder: Path) -> str:
    """Returns one SHA-256 over the names and contents of a model folder's files; cached for the process.

    What an export says of its training does not count: the rules of play are compared by themselves.
    """
    suffixes = (".safetensors", ".bin", ".json", ".jinja", ".model")
    files = sorted(path for path in folder.iterdir() if path.suffix in suffixes)
    lines = [f"{path.name} {digest(path)}" for path in files if path.name not in (MANIFEST, POLICY_FILE)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
