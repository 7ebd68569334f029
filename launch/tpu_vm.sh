#!/usr/bin/env bash
# One jmrec run on a Cloud TPU slice: starts it on every worker, and again when it was pre-empted.
# Needs: gcloud, logged in, on the machine where you type; on every worker the same checkout (default
# folder: jmrec in the home folder) with a virtual environment .venv that has jmrec and jax[tpu]; a
# workdir that all workers share (a mounted bucket or Filestore).
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash launch/tpu_vm.sh TPU ZONE --config FILE --workdir WORKDIR [...]
       bash launch/tpu_vm.sh here --config FILE --workdir WORKDIR [...]

The first form runs the second one on all workers of the slice, through ssh; the second runs
`jmrec run` on this worker, which finds the others through Cloud TPU's metadata, and starts it again
while it ends with 75 (a worker is gone, or was told to stop).

  JMREC_REMOTE=folder   the checkout on the workers (default: jmrec)
  JMREC_RESTARTS=100    start again so many times at most
  JMREC_REMOTE_PYTHON=/path/to/python   the interpreter on the workers (default: .venv/bin/python
                        there); with "here" it is JMREC_PYTHON, as everywhere

example: bash launch/tpu_vm.sh my-slice us-east5-a \
  --config experiments/tpad.py:size=base --workdir /mnt/shared/runs/base
TEXT
}

for word in "$@"; do
  case "$word" in -h | --help) usage && exit 0 ;; esac
done

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ "${1:-}" = here ]; then
  shift
  cd "$ROOT"
  export JMREC_PYTHON="${JMREC_PYTHON:-$ROOT/.venv/bin/python}"
  ensure_environment ""
  export JMREC_CLUSTER=auto
  code=0
  again "${JMREC_RESTARTS:-100}" "$PYTHON" -m jmrec run "$@" || code=$?
  exit "$code"
fi

[ "$#" -ge 3 ] || fail "say which slice, where, and what to run; see launch/tpu_vm.sh --help."
name="$1" zone="$2"
shift 2
command -v gcloud >/dev/null 2>&1 ||
  fail "gcloud is not on the PATH; install the Google Cloud CLI, or log in to each worker and say 'here'."
remote="cd $(printf '%q' "${JMREC_REMOTE:-jmrec}") &&"
if [ -n "${JMREC_REMOTE_PYTHON:-}" ]; then remote+=" JMREC_PYTHON=$(printf '%q' "$JMREC_REMOTE_PYTHON")"; fi
for each in JMREC_RESTARTS JMREC_SILENCE; do
  if [ -n "${!each:-}" ]; then remote+=" $each=$(printf '%q' "${!each}")"; fi
done
remote+=" bash launch/tpu_vm.sh here$(printf ' %q' "$@")"
say "on all workers of $name in $zone: $remote"
exec gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$remote"
