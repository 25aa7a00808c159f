#!/usr/bin/env bash
# Four processes on this machine: one for each of four GPUs, or on CPU one virtual device each.
#   NPROC_PER_NODE=2 examples/launch/one_machine.sh examples/ddp/train_jax.py --out runs/ddp
set -euo pipefail

# Started anew up to ten times, from the last checkpoint; stuck ranks are found after ten minutes.
exec jaxopt-core launch \
  --nproc "${NPROC_PER_NODE:-4}" \
  --devices-per-proc "${DEVICES_PER_PROC:-1}" \
  --max-restarts 10 \
  --stall-timeout 600 \
  --logs "${LOGS:-launch-logs}" \
  "$@"
