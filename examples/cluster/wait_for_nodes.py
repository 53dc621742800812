"""Waits until a Ray cluster has so many nodes: verl does not wait, it refuses a cluster that is too small.

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


def alive(address: str) -> int:
    """How many nodes the cluster has; 0 while there is none. Asked in a process that Ray may end."""
    done = subprocess.run([sys.executable, "-c", PROBE, address], capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def main() -> None:
    address, nodes, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    end = time.monotonic() + seconds
    while (found := alive(address)) < nodes:
        if time.monotonic() > end:
            sys.exit(f"{found} of {nodes} nodes have joined the Ray cluster at {address} within {seconds:.0f} s")
        time.sleep(2)


if __name__ == "__main__":
    main()
