"""Waits until a Ray cluster has the given number of nodes; verl rejects a cluster that is too small without waiting.

python wait_for_nodes.py ADDRESS NODES SECONDS
"""

import subprocess
import sys
import time

PROBE = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
"""


def count_nodes(address: str) -> int:
    """Returns the number of living nodes; 0 while there is no cluster.

    Asked in a subprocess, since Ray ends a process that cannot connect.
    """
    result = subprocess.run([sys.executable, "-c", PROBE, address], capture_output=True, text=True)
    return int(result.stdout.split()[-1]) if result.returncode == 0 else 0


def main() -> None:
    """Waits; exits with an error after the given seconds."""
    address, nodes, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    deadline = time.monotonic() + seconds
    joined = count_nodes(address)
    while joined < nodes:
        if time.monotonic() > deadline:
            sys.exit(f"{joined} of {nodes} nodes have joined the Ray cluster at {address} within {seconds:.0f} s")
        time.sleep(2)
        joined = count_nodes(address)


if __name__ == "__main__":
    main()
