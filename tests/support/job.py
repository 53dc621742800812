"""Runs a training job with real processes, for tests that observe it, kill parts of it and look for leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

MARK = "RSIM_TEST_JOB"
"""Environment variable of every process of a job; its value is the job's name."""


def shared_memory() -> int:
    """Returns the bytes of shared memory in use on this machine."""
    return sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").iterdir() if path.is_file())


def _hear_interrupts() -> None:
    """Restores the handling of SIGINT, which processes started in the background by a shell ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Job:
    """Starts a training job as a user would, in a folder of its own.

    With ``hooks``, a folder, all its processes load the module ``job_hooks.py`` of that folder.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        name: str,
        *overrides: str,
        environment: Mapping[str, str] | None = None,
        hooks: Path | None = None,
    ):
        folder.mkdir(exist_ok=True)
        self.metrics_file, self.log_file = folder / f"{name}.jsonl", folder / f"{name}.log"
        env = os.environ | {
            "VERL_PLATFORM": "cpu",
            "RSIM_HOME": str(home),
            "VERL_FILE_LOGGER_PATH": str(self.metrics_file),
            "HF_HUB_OFFLINE": "1",
            MARK: name,
            **(environment or {}),
        }
        if hooks:
            env["VERL_USE_EXTERNAL_MODULES"] = "job_hooks"
            env["PYTHONPATH"] = os.pathsep.join([str(hooks), *filter(None, [env.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", "pkg://verl_rsim.recipes.tiny"]
        command += ["--config-name", "tiny", f"trainer.default_local_dir={folder / 'checkpoints'}", *overrides]
        self.name = name
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, preexec_fn=_hear_interrupts
            )

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def metrics(self) -> dict[int, dict]:
        """Returns the logged metrics by training step; step 0 is the validation before training."""
        steps: dict[int, dict] = {}
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                steps.setdefault(record["step"], {}).update(record["data"])
        return steps

    def wait(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"still running after {seconds} s:\n{self.log()[-3000:]}") from None

    def wait_for_step(self, step: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while step not in self.metrics():
            assert self.process.poll() is None, self.log()[-5000:]
            assert time.monotonic() < end, f"no step {step} after {seconds} s:\n{self.log()[-3000:]}"
            time.sleep(0.5)

    def processes(self) -> list[psutil.Process]:
        """Returns every living process of the job, also those whose parent has died."""
        mine = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(process)
        return mine

    def stop(self) -> None:
        for process in [*self.processes(), self.process]:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                process.kill()
