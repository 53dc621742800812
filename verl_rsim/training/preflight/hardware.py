"""Reports the hardware of this machine: memory, shared memory and GPUs. Reads system files; imports nothing heavy."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SEGMENTS = ("psm_*", "sem.mp-*")
"""File names of Python's shared-memory segments and semaphores. Those of a killed job stay until the next boot."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Holds the memory in bytes: of the machine, or of the container if its limit is lower."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """Holds a GPU's name and memory in bytes; 0 if nvidia-smi reports none, as for memory shared with the CPU."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class OrphanedSegments:
    """Holds the shared-memory segments that no process maps, and their total size in bytes."""

    paths: tuple[Path, ...]
    size: int


def memory(meminfo: Path = Path("/proc/meminfo"), limits: tuple[str, ...] = CGROUP_LIMITS) -> Memory:
    """Returns the memory that processes may use here.

    Args:
        meminfo: the kernel's report of the machine's memory.
        limits: files with a container's memory limit (cgroups 2 and 1); the first ones may be absent.
    """
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines()}
    total, available = fields["MemTotal"], fields["MemAvailable"]
    for path in map(Path, limits):
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit() and int(text) < total:
            used = fields["MemTotal"] - available
            total, available = int(text), max(0, min(available, int(text) - used))
    return Memory(total, available)


def has_flash_attention() -> bool:
    """Returns True if transformers 5 can use flash attention.

    It needs the package ``flash-attn``, or ``kernels``, which downloads flash attention from the hub.
    """
    for name, oldest in (("flash-attn", "2.3.3"), ("kernels", "0.10.2")):
        with suppress(PackageNotFoundError, InvalidVersion):
            if Version(version(name)) >= Version(oldest):
                return True
    return False


def gpus() -> list[Gpu]:
    """Returns the NVIDIA GPUs that nvidia-smi reports; an empty list if the program is not installed.

    Raises:
        RuntimeError: nvidia-smi is installed but fails.
    """
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"nvidia-smi gives no answer in {error.timeout:.0f} s") from error
    if done.returncode:
        raise RuntimeError(f"nvidia-smi fails: {(done.stderr or done.stdout).strip()}")
    cards = []
    for line in done.stdout.strip().splitlines():
        name, total, free = line.rsplit(", ", 2)  # from the right: the name may hold a comma
        cards.append(Gpu(name, _mebibytes(total), _mebibytes(free)))
    return cards


def _mebibytes(text: str) -> int:
    """Returns a number of MiB in bytes; 0 for "[N/A]"."""
    return int(text) << 20 if text.isdigit() else 0


def orphaned_segments(shared: Path = Path("/dev/shm"), processes: Path = Path("/proc")) -> OrphanedSegments:
    """Returns the shared-memory segments that killed jobs of this user left behind."""
    mapped: set[str] = set()
    for maps in processes.glob("[0-9]*/maps"):
        try:
            mapped |= {line.rsplit(" ", 1)[-1] for line in maps.read_text().splitlines() if str(shared) in line}
        except OSError:  # the process has ended, or belongs to another user
            continue
    orphaned: list[Path] = []
    for pattern in SEGMENTS:
        orphaned += [path for path in shared.glob(pattern) if str(path) not in mapped]
    # Segments are sparse files: the blocks in use count, not the nominal size.
    return OrphanedSegments(tuple(orphaned), sum(path.stat().st_blocks * 512 for path in orphaned))
