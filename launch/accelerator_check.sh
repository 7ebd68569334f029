#!/usr/bin/env bash
# Measures on a machine with one GPU all of jmrec that no CPU can show, in at most 8 minutes.
# Needs: bash, Python 3.11 or newer with a JAX for the accelerator. torch and the pretrained weights
# (bash launch/pretrained.sh) are used where they are; a part that lacks something says so.
set -euo pipefail

usage() {
  cat <<TEXT
usage: bash launch/accelerator_check.sh --out FOLDER [--wheels FOLDER] [--minutes 8] [--size full|toy]

Writes FOLDER/accelerator.json and FOLDER/accelerator.txt, and prints a table. The exit code is 0
where parts were skipped or failed, which a sentence says, and 2 where a result is wrong.

  --wheels FOLDER                wheels brought along: each package of them is used, for this
                                 check alone; no index is asked, nothing else is installed
  JMREC_PYTHON=/path/to/python   use this interpreter (one that has a JAX for the accelerator)
  JMREC_VENV=folder              use a virtual environment in another place

example: JMREC_PYTHON=python3 bash launch/accelerator_check.sh --wheels wheels --out found
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

wheels="" words=()
while [ $# -gt 0 ]; do
  case "$1" in
    --wheels)
      [ $# -gt 1 ] || fail "--wheels needs a folder."
      wheels="$2" && shift 2
      ;;
    --wheels=*) wheels="${1#*=}" && shift ;;
    *) words+=("$1") && shift ;;
  esac
done

# An interpreter of one's own may get from the wheels what it lacks; an environment comes first.
if [ -z "${JMREC_PYTHON:-}" ]; then ensure_environment; fi
if [ -n "$wheels" ]; then
  packages="$(mktemp -d)" used=0
  trap 'rm -rf "$packages"' EXIT
  for wheel in "$wheels"/*.whl; do
    [ -e "$wheel" ] || fail "--wheels=$wheels holds no wheels; name a folder with *.whl files."
    say "unpacking ${wheel##*/} for this check ..."
    if "${JMREC_PYTHON:-$PYTHON}" -m pip install --quiet --disable-pip-version-check --no-index \
      --no-deps --target "$packages" "$wheel"; then
      used=$((used + 1))
    else
      say "${wheel##*/} does not fit this Python (see above) and is left out"
    fi
  done
  [ "$used" -gt 0 ] || fail "no wheel of $wheels fits this Python (see above); bring others."
  export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ -n "${JMREC_PYTHON:-}" ]; then ensure_environment; fi

"$PYTHON" -m jmrec.tools.benchmark accelerator "${words[@]}"
