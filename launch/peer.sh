#!/usr/bin/env bash
# Makes an environment with RecBole, the peer of `python -m jmrec.tools.benchmark sessions`.
# Needs: bash, Python 3.11 with pip, 1.5 GB of disk. Nothing of it is part of jmrec.
set -euo pipefail

usage() {
  cat <<TEXT
usage: bash launch/peer.sh

Makes .venv-peer in the checkout with RecBole and a PyTorch for CPUs, in versions that were seen to
work together, and prints the command that measures jmrec beside it.

  JMREC_PEER=folder              make the environment in another place
  JMREC_PYTHON=/path/to/python   make it with this Python 3.11

example: bash launch/peer.sh && python -m jmrec.tools.benchmark sessions --peer .venv-peer/bin/python
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

venv="${JMREC_PEER:-$ROOT/.venv-peer}"
# RecBole asks for numpy and pandas of its own time.
PACKAGES=(torch==2.13.0 recbole==1.2.1 "pandas<3" "setuptools<81")

base="${JMREC_PYTHON:-python3.11}"
command -v "$base" >/dev/null 2>&1 || base="$(find_python)"
"$base" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
  fail "RecBole needs Python 3.11 here, $base is $(python_version "$base");" \
    "name one: JMREC_PYTHON=/path/to/python3.11."
if [ ! -e "$venv/bin/python" ]; then
  say "making a virtual environment in $venv"
  "$base" -m venv "$venv"
fi
if ! "$venv/bin/python" -c "import importlib.metadata as m; m.version('recbole')" 2>/dev/null; then
  say "installing ${PACKAGES[*]} by pip, which takes a few minutes ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" ||
    fail "${PACKAGES[*]} could not be installed into $venv (see above);" \
      "mend the connection to your package index and run this again."
fi
say "now: python -m jmrec.tools.benchmark sessions --peer $venv/bin/python"
