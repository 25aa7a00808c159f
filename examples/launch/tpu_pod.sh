#!/usr/bin/env bash
# The script on every host of a TPU pod slice; parallel.initialize() finds the others by itself.
#   TPU=my-pod ZONE=us-central2-b examples/launch/tpu_pod.sh train.py --out gs://bucket/run
set -euo pipefail

# One process a host drives all of its chips, so there is nothing to launch on the host but the script. When one host
# fails, all end; the loop starts all again. 143 is a save after SIGTERM (maintenance), which also goes on.
for attempt in $(seq 0 "${MAX_RESTARTS:-10}"); do
  echo "attempt $attempt"
  status=0
  gcloud compute tpus tpu-vm ssh "${TPU:?name of the TPU}" --zone "${ZONE:?its zone}" --worker=all \
    --command "cd ~/train && python -u $(printf '%q ' "$@")" || status=$?
  if [ "$status" -eq 0 ] || [ "$status" -eq 2 ]; then # 2: wrong arguments
    exit "$status"
  fi
  sleep $((RANDOM % 10 + 5))
done
exit "$status"
