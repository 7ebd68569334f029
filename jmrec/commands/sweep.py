"""``jmrec sweep``: every trial of an experiment's ``get_hyper``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_overrides


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--config", required=True, help="experiment file with get_hyper, arguments after a colon"
    )
    parser.add_argument("--workdir", type=Path, required=True, help="where every trial is written")
    parser.add_argument("--parallel", type=int, metavar="N", help="trials at a time (default: 1)")
    parser.add_argument(
        "--population", type=int, metavar="K",
        help="train K trials at once in one program, where they differ in learning rate, weight "
        "decay, clip, warm-up or hparams alone: for an accelerator that one of them does not fill; "
        "on a CPU it is no quicker",
    )  # fmt: skip
    # For the process that a sweep with --population starts.
    parser.add_argument(
        "--at-once", type=lambda text: [int(each) for each in text.split(",")], default=(),
        help=argparse.SUPPRESS,
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--index", type=int, metavar="I",
        help="run trial I only, from 0 (default: the task's number in a SLURM array or an indexed "
        "Kubernetes job, where neither --parallel nor --population is given)",
    )  # fmt: skip
    how.add_argument(
        "--optuna", metavar="STUDY",
        help="let Optuna choose trials and end poor ones by their validation curve; the study is "
        "kept in the workdir",
    )  # fmt: skip
    how.add_argument(
        "--wandb-yaml", type=Path, metavar="FILE", help="write the sweep as W&B's YAML, run nothing"
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="with --optuna: how many trials (default: all)"
    )
    parser.add_argument(
        "--no-prune", action="store_true", help="with --optuna: run every trial to its end"
    )
    parser.add_argument(
        "--no-share", action="store_true",
        help="let every trial make every stage (default: stages that are equal in all that decides "
        "them are made once, by whichever trial comes first, and kept in shared-stages meanwhile)",
    )  # fmt: skip
    parser.add_argument(
        "--every-row", action="store_true",
        help="train every student (or ranker) in every trial (default: the one that is served, by "
        "which trials are judged; all of them where the best is served)",
    )  # fmt: skip
    add_overrides(parser)


def action(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Run the trials, or one of them, or write W&B's file."""
    from jmrec.tools.sweep.sweep import sweep

    sweep(
        args.config, overrides, args.workdir, parallel=args.parallel, population=args.population,
        index=args.index, study=args.optuna, count=args.trials, prune=not args.no_prune,
        share=not args.no_share, every_row=args.every_row, wandb_file=args.wandb_yaml,
        at_once=args.at_once,
    )  # fmt: skip


COMMAND = Command(
    help="Run every trial of an experiment's get_hyper, judged on validation; started again, it\n"
    "goes on. It ends with a table and a plot (sweep.csv, sweep.json, sweep.png). Several\n"
    "workers, on several machines that see the workdir, may run the same command.",
    example="jmrec sweep --config experiments/tpad.py:size=tiny --workdir runs/sweep \\\n"
    "    --parallel 2\n"
    "  jmrec sweep ... --optuna lr --trials 4     # a study that chooses and prunes\n"
    "  CUDA_VISIBLE_DEVICES=0,1,2,3 jmrec sweep ... --parallel 4     # one GPU a trial",
    options=options,
    action=action,
    takes_overrides=True,
)
