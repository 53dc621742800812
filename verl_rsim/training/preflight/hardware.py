"""What this machine has: memory, shared memory, GPUs, disk. Reads the system's own files; imports nothing heavy."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import InvalidVersion, Version

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SEGMENTS = ("psm_*", "sem.mp-*")
"""Names of Python's shared memory: what is left of a killed job is left until the next boot."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the machine, or of the container's limit where that is lower."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and its memory in bytes; 0 where it is the processor's, which nvidia-smi does not tell."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Segments of shared memory that no process maps, and the bytes they hold."""

    paths: tuple[Path, ...]
    size: int


def memory(meminfo: Path = Path("/proc/meminfo"), limits: tuple[str, ...] = CGROUP_LIMITS) -> Memory:
    """The memory that processes here may use."""
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines()}
    total, available = fields["MemTotal"], fields["MemAvailable"]
    for path in map(Path, limits):
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit() and int(text) < total:
            used = fields["MemTotal"] - available
            total, available = int(text), max(0, min(available, int(text) - used))
    return Memory(total, available)


def has_flash_attention() -> bool:
    """Whether transformers 5 finds flash attention: the package, or ``kernels``, which fetches it from the hub."""
    for name, oldest in (("flash-attn", "2.3.3"), ("kernels", "0.10.2")):
        with suppress(PackageNotFoundError, InvalidVersion):
            if Version(version(name)) >= Version(oldest):
                return True
    return False


def gpus() -> list[Gpu]:
    """NVIDIA's GPUs, as nvidia-smi shows them; none where there is no such program.

    Raises:
        RuntimeError: nvidia-smi is there and fails.
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
    rows = [line.rsplit(", ", 2) for line in done.stdout.strip().splitlines()]
    return [Gpu(name, *(int(part) << 20 if part.isdigit() else 0 for part in parts)) for name, *parts in rows]


def leftovers(shared: Path = Path("/dev/shm"), processes: Path = Path("/proc")) -> Leftovers:
    """What killed jobs of this user left in shared memory."""
    mapped = set()
    for maps in processes.glob("[0-9]*/maps"):
        try:
            mapped |= {line.rsplit(" ", 1)[-1] for line in maps.read_text().splitlines() if str(shared) in line}
        except OSError:  # ended in between, or another user's
            continue
    found = [path for pattern in SEGMENTS for path in shared.glob(pattern) if str(path) not in mapped]
    return Leftovers(tuple(found), sum(path.stat().st_blocks * 512 for path in found))
