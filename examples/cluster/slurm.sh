#!/usr/bin/env bash
#SBATCH --job-name=verl-rsim
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
# Starts a Ray cluster on the job's nodes and runs one training job on it:
#   sbatch --nodes 2 examples/cluster/slurm.sh multi_node/two_nodes [OVERRIDE ...]
# Submit it from the repository's folder, in the environment that has verl-rsim, on a shared file system.
set -euo pipefail

port=${RAY_PORT:-6379}
start_seconds=${RAY_START_SECONDS:-300}
resources=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE")

# A token of this cluster. Ray 2.60 requires one if it finds one in ~/.ray, and its clients send it only with RAY_AUTH_MODE=token.
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(python -c 'import secrets; print(secrets.token_hex(32))')}
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# Job steps that run Ray on a node for the whole job; they end with this script.
ray_steps=()
trap 'kill "${ray_steps[@]}" 2> /dev/null; wait' EXIT
on_node() { srun --overlap --nodes 1 --ntasks 1 --nodelist "$@"; }

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(on_node "$head" python -c 'import ray; print(ray.util.get_node_ip_address())')

on_node "$head" ray start --block --head --node-ip-address "$address" --port "$port" "${resources[@]}" &
ray_steps+=($!)
python examples/cluster/wait_for_nodes.py "$address:$port" 1 "$start_seconds"
for node in "${nodes[@]:1}"; do
  on_node "$node" ray start --block --address "$address:$port" "${resources[@]}" &
  ray_steps+=($!)
done
python examples/cluster/wait_for_nodes.py "$address:$port" "${#nodes[@]}" "$start_seconds"

on_node "$head" verl-rsim train "$@" ++ray_kwargs.ray_init.address="$address:$port"
