#!/usr/bin/env bash
# Runs a sweep: every trial of an experiment's get_hyper, to one table and one plot.
# Needs: bash, Python 3.11 or newer with pip; for each trial at a time what one run needs. On several
# machines: a workdir that all of them see, on a file system with flock (NFS 4, Lustre with -o flock).
# On SLURM: sbatch --array=0-5 --wrap "bash launch/sweep.sh --config ... --workdir ..."; on
# Kubernetes an indexed Job with the same command. Exits with 75 when it is to be started again.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash launch/sweep.sh --config FILE[:ARGUMENTS] --workdir FOLDER [OPTION ...]

Makes or reuses .venv in the checkout, installs jmrec with the extra "sweep" into it, and runs
`jmrec sweep` with the arguments as they are. Killed and started again it goes on.

  --parallel N           trials at a time on this machine; with CUDA_VISIBLE_DEVICES=0,1,...
                         each gets its share of the GPUs
  --index I              one trial only; in a SLURM array or an indexed Kubernetes job this is
                         the task's own number
  --optuna STUDY         a study in the workdir, shared by all who run this command
  --no-share             every trial makes every stage, also those that are equal
  --every-row            every student is trained in every trial, not only the one that is served
  --wandb-yaml FILE      write the sweep for wandb, run nothing
  --config.NAME=VALUE    changes a setting for all trials

  JMREC_PYTHON=/path/to/python   use this interpreter as it is and install nothing
  JMREC_VENV=folder              use a virtual environment in another place

example: bash launch/sweep.sh --config experiments/tpad.py:size=tiny --workdir runs/sweep \
           --parallel 2
TEXT
}

for word in "$@"; do
  case "$word" in -h | --help) usage && exit 0 ;; esac
done

# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ensure_environment sweep
exec "$PYTHON" -m jmrec sweep "$@"
