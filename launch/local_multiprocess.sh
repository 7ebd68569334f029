#!/usr/bin/env bash
# Runs one jmrec run in several processes on this machine, joined by jax.distributed.
# Needs: what launch/quickstart.sh needs, and 2 GB of memory a process; with GPUs, one a process.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash launch/local_multiprocess.sh PROCESSES --config FILE --workdir WORKDIR [...]

Starts `jmrec run` with these words in so many processes, which share every batch. When one of them
dies the others end within a minute and say which, and this script ends with 75: start the same
command again to go on. A run that was stopped and goes on ends in the same bits on the same number
of devices and processes; on another number it follows the same curve within rounding.

  JMREC_DEVICES=4     each process pretends to have 4 CPU devices, to try a topology without one
  JMREC_GPUS=1        process number P is shown GPU number P alone
  JMREC_RESTARTS=3    start again by itself so many times (default 0)
  JMREC_SILENCE=30    seconds without a sign of life after which a process counts as gone
  JMREC_PYTHON=/path/to/python   use this interpreter as it is and install nothing
  JMREC_VENV=folder              use a virtual environment in another place

example: JMREC_DEVICES=8 bash launch/local_multiprocess.sh 1 --config ... --workdir runs/eight
         bash launch/local_multiprocess.sh 2 --config experiments/tpad.py:size=tiny --workdir runs/two
TEXT
}

for word in "$@"; do
  case "$word" in -h | --help) usage && exit 0 ;; esac
done

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes="${1:-}"
case "$processes" in
  "" | 0 | *[!0-9]*) fail "'$processes' is no number of processes; see launch/local_multiprocess.sh --help." ;;
esac
shift
ensure_environment ""

started=()
stopped=""
interrupted=""
# shellcheck disable=SC2329  # the traps call it
end() {
  local each
  stopped=1
  # Not those in "started": one may run already that does not stand there yet.
  for each in $(jobs -p); do kill "-$1" "$each" 2>/dev/null || true; done
}
trap 'end TERM' TERM
# The first Ctrl-C saves, the second ends at once; neither asks to be started again.
trap 'if [ -n "$interrupted" ]; then end KILL; else end TERM; fi; interrupted=1' INT

# Start all processes, wait for all of them; 75 where any of them says so, else the highest code.
# shellcheck disable=SC2329  # again calls it
together() {
  local port process each code=0 worst=0 requeue=""
  port="$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
  started=()
  for ((process = 0; process < processes; process++)); do
    (
      export JMREC_COORDINATOR="127.0.0.1:$port" JMREC_PROCESSES="$processes" JMREC_PROCESS="$process"
      if [ -n "${JMREC_DEVICES:-}" ]; then
        export JAX_PLATFORMS=cpu
        export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$JMREC_DEVICES"
      fi
      if [ -n "${JMREC_GPUS:-}" ]; then export CUDA_VISIBLE_DEVICES="$process"; fi
      exec "$PYTHON" -m jmrec run "${words[@]}"
    ) &
    started+=("$!")
    say "process $process is $!"
  done
  for each in "${started[@]}"; do
    while true; do
      code=0
      wait "$each" || code=$?
      # A signal ends the waiting, not the process.
      kill -0 "$each" 2>/dev/null || break
    done
    if [ "$code" -eq 75 ]; then requeue=1; fi
    if [ "$code" -gt "$worst" ]; then worst="$code"; fi
  done
  if [ -n "$requeue" ]; then worst=75; fi
  return "$worst"
}

words=("$@")
plural="es"
if [ "$processes" -eq 1 ]; then plural=""; fi
say "running in $processes process$plural: $PYTHON -m jmrec run ${words[*]}"
code=0
again "${JMREC_RESTARTS:-0}" together || code=$?
if [ "$code" -eq 75 ] && [ -n "$interrupted" ]; then code=130; fi
exit "$code"
