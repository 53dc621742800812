"""One job a run's folder: a second one is refused, and a dead one leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from verl_rsim.utils.errors import ConfigError

HOLDER = """
import sys, time
from pathlib import Path
from verl_rsim.utils.artifact_folders import locked_folder
with locked_folder(Path(sys.argv[1]), ".job.lock"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_job_in_the_folder_is_refused_until_the_first_is_dead(tmp_path):
    from verl_rsim.training.trainer import RUN_LOCK, RsimTrainer

    assert RUN_LOCK == ".job.lock"
    config = OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path / "run")}})
    trainer = object.__new__(RsimTrainer)
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=r"trainer\.default_local_dir=.*another job trains in this folder"):
            trainer._lock_run_folder(config)
    finally:
        first.kill()
        first.wait()
    trainer._lock_run_folder(config)
