"""Runs a training job over two Ray nodes on this machine, through the Slurm script of the examples.

    python benchmarks/two_nodes.py [OVERRIDE ...]

Slurm's own commands are replaced by stubs: `srun` runs its command here, `scontrol` names two nodes. Everything else is
`examples/cluster/slurm.sh`: two raylets with separate logical resources, the wait for both, and the recipe `tiny` with
`trainer.nnodes=2` and one logical GPU per node. Fails unless both steps were trained and each node had a worker and a
server. Takes about five minutes on two cores.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ray
from every_recipe import kill_marked, metrics_problem

ROOT = Path(__file__).parents[1]
TIMEOUT = 900
"""Seconds that the job may take."""
STUBS = {
    "srun": 'while [[ $1 == --* ]]; do case $1 in --overlap) shift ;; *) shift 2 ;; esac; done\nexec "$@"\n',
    "scontrol": "printf 'node1\\nnode2\\n'\n",
}
OVERRIDES = ("trainer.nnodes=2", "trainer.n_gpus_per_node=1", "ray_kwargs.ray_init.num_cpus=null",
             "ray_kwargs.ray_init.num_gpus=null", "trainer.test_freq=-1", "trainer.val_before_train=false")  # fmt: skip
PROBE = """
import json, sys, ray
from ray._private.state import state
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([[a["Address"]["NodeID"], a["ActorClassName"].split(".")[-1]] for a in state.actor_table(None).values()
                  if a["State"] == "ALIVE"]))
"""


def actors(address: str) -> list[list[str]]:
    """Returns the node and the class of every living actor; empty while the cluster is not up.

    Asked in a subprocess: a driver can connect to one cluster only, and Ray ends the process that loses its own.
    """
    result = subprocess.run([sys.executable, "-c", PROBE, address], capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1]) if result.returncode == 0 else []


def main() -> int:
    """Chooses a free port and runs the job in a temporary folder; returns the exit status."""
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="rsim") as folder:
        free.bind(("", 0))
        port = free.getsockname()[1]
        free.close()
        return run(Path(folder), port)


def run(folder: Path, port: int) -> int:
    """Runs the job, records which actors each node has, and returns the exit status."""
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (folder / name).chmod(0o755)
    metrics, mark = folder / "metrics.jsonl", f"RSIM_TWO_NODES={folder}"
    environment = {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_TMPDIR": str(folder)}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_ON_NODE": "1"}
    environment |= {"VERL_PLATFORM": "cpu", "VERL_FILE_LOGGER_PATH": str(metrics), "RAY_PORT": str(port)}
    environment["RSIM_TWO_NODES"] = str(folder)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    address = f"{ray.util.get_node_ip_address()}:{port}"
    command = ["bash", "examples/cluster/slurm.sh", "tiny", *OVERRIDES, *sys.argv[1:]]
    print(f"VERL_PLATFORM=cpu {' '.join(command)}", flush=True)
    job = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment)
    seen: dict[str, set[str]] = {}
    try:
        limit = time.monotonic() + TIMEOUT
        while job.poll() is None and time.monotonic() < limit:
            for node, name in actors(address):
                seen.setdefault(node, set()).add(name)
            time.sleep(10)
        status = job.poll()
    finally:
        kill_marked(mark)
    for node, names in seen.items():
        print(f"node {node[:8]}: {', '.join(sorted(names))}")
    problem = metrics_problem(metrics)
    print(f"exit status {status}; {problem or 'two steps, all losses finite'}")
    both = len(seen) == 2 and all({"WorkerDict", "vLLMHttpServer"} <= names for names in seen.values())
    return int(status != 0 or bool(problem) or not both)


if __name__ == "__main__":
    sys.exit(main())
