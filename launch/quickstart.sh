#!/usr/bin/env bash
# From nothing to a result: installs jmrec and runs TPAD on the embedded toy catalogue.
# Needs: bash, Python 3.11 or newer with pip, 2 cores, 4 GB of memory; no GPU, no data.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash launch/quickstart.sh [WORKDIR] [--config.NAME=VALUE ...]

Makes or reuses .venv in the checkout, installs jmrec into it, and runs the whole of TPAD on
ToyShop, the catalogue that jmrec draws itself: two multimodal towers, the session students,
all rules without training, and a report. It takes a few minutes on two cores.

  WORKDIR                where the run goes (default: runs/quickstart in this folder);
                         run it again with the same one and it goes on where it stopped
  --config.NAME=VALUE    changes a setting of experiments/tpad.py

  JMREC_PYTHON=/path/to/python   use this interpreter as it is and install nothing
  JMREC_VENV=folder              use a virtual environment in another place

example: bash launch/quickstart.sh runs/first --config.seed=1
TEXT
}

for word in "$@"; do
  case "$word" in -h | --help) usage && exit 0 ;; esac
done

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workdir="runs/quickstart"
case "${1:-}" in
  "" | -*) ;;
  *)
    workdir="$1"
    shift
    ;;
esac

say "jmrec quickstart: install, then TPAD on the embedded ToyShop, into $workdir"
ensure_environment ""

command=("$PYTHON" -m jmrec run --config "$ROOT/experiments/tpad.py:size=tiny"
  --workdir "$workdir" "$@")
say "running: ${command[*]}"
"${command[@]}"

# The newest report, where a workdir holds several.
report=""
while IFS= read -r found; do
  if [ -z "$report" ] || [ "$found" -nt "$report" ]; then report="$found"; fi
done < <(find "$workdir" -name 'report*.html' -type f)

# From the folder above the checkout, python -m would take the checkout for the package.
jmrec="$(dirname "$PYTHON")/jmrec"
if [ ! -x "$jmrec" ]; then jmrec="$PYTHON -m jmrec"; fi
say ""
if [ -n "$report" ]; then say "The report: $report (open it in a browser)"; fi
cat <<TEXT
What to try next:
  recommend    $jmrec recommend --workdir $workdir --items t0012,t0057,t0003
  another seed bash $ROOT/launch/quickstart.sh runs/seed1 --config.seed=1
  your data    $jmrec data init --help
  all commands $jmrec --help
TEXT
activate="$(dirname "$PYTHON")/activate"
if [ -f "$activate" ]; then say "\". $activate\" puts jmrec on the PATH of your shell."; fi
