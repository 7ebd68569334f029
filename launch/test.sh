#!/usr/bin/env bash
# Runs the tests: installs jmrec with its test extra where that is not done yet, then pytest.
# Needs: bash, Python 3.11 or newer with pip, 2 cores, 8 GB of memory, 3 GB of disk; no GPU.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash launch/test.sh [PYTEST ARGUMENT ...]

Makes or reuses .venv in the checkout, installs jmrec with the extra "test" and pretrained weights
(launch/pretrained.sh), and runs pytest in the checkout. On Python 3.11 torch comes too, by pip, for
the tests of parity (where pip would bring a build for GPUs, that is gigabytes, so set pip up for
torch's CPU builds first); on 3.12 and newer those tests are skipped where torch is not installed.
Without arguments: the whole suite, in several processes where there are cores.
Arguments go to pytest as they are; paths are read from the root of the checkout.

  JMREC_PYTHON=/path/to/python   use this interpreter as it is and install nothing
  JMREC_VENV=folder              use a virtual environment in another place
  JAX_PLATFORMS=...              where JAX runs; cpu where it is not set
  JAX_COMPILATION_CACHE_DIR=folder   keep there what is compiled, for the next run

example: bash launch/test.sh tests/unit/test_config.py -x
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ensure_environment test
ensure_by_pip parity
[ -n "${JMREC_PYTHON:-}" ] || bash "$ROOT/launch/pretrained.sh" ||
  say "some pretrained weights are missing: the tests that read them will fail"
export JAX_PLATFORMS="${JAX_PLATFORMS-cpu}"
cd "$ROOT"

if [ "$#" -eq 0 ]; then
  cores="$("$PYTHON" -c 'import os; print(len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)))')"
  workers=$((cores / 2 > 8 ? 8 : cores / 2 > 2 ? cores / 2 : 2))
  # A file stays in one process, so that its compiled functions and fixtures are made once; in the
  # order of the folders, so that the long ones (integration) are not the last.
  if [ "$cores" -ge 2 ]; then
    set -- -q -n "$workers" --dist loadfile --no-loadscope-reorder
  fi
fi
say "running: $PYTHON -m pytest $*"
exec "$PYTHON" -m pytest "$@"
