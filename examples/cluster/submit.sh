#!/usr/bin/env bash
# A training job on a Ray cluster that is already there; ends with the job, and fails if it does.
#   RAY_ADDRESS=http://HEAD:8265 examples/cluster/submit.sh multi_node/two_nodes [OVERRIDE ...]
set -euo pipefail
here=$(dirname "$0")
ray job submit --runtime-env "$here/runtime_env.yaml" -- verl-rsim train "$@"
