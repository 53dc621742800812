#!/usr/bin/env bash
# Submits a training job to a running Ray cluster, waits for it, and fails if it fails.
#   RAY_ADDRESS=http://HEAD:8265 examples/cluster/submit.sh multi_node/two_nodes [OVERRIDE ...]
set -euo pipefail
here=$(dirname "$0")
ray job submit --runtime-env "$here/runtime_env.yaml" -- verl-rsim train "$@"
