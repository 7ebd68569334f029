"""The command line: parses, dispatches, turns errors into one sentence.

Exit codes: 0 done; 2 something that the user can mend; 75 stopped by SIGTERM after saving, or by
the loss of another process of the run, to be started again with the same command; 130 interrupted
by the keyboard.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jmrec import __version__
from jmrec.data.help import DATA_HELP
from jmrec.errors import REQUEUE, Preempted, UserError, refusal
from jmrec.preemption import stop_on_sigterm

BAD_INPUT, INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors."""

    def error(self, message: str) -> Any:
        """Raise instead of printing the whole usage."""
        raise UserError(f"{message} (see {self.prog} --help).")


def parser() -> Parser:
    """Return the parser of all verbs; each verb's help ends in a worked example."""
    top = Parser(
        prog="jmrec",
        description="Multimodal session recommendation: teachers that read, a light student.",
        epilog="example:\n  jmrec run --config experiments/tpad.py:size=tiny --workdir runs/toy",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"jmrec {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(within: Any, name: str, help_text: str, example: str) -> Parser:
        made: Parser = within.add_parser(
            name,
            help=help_text.partition("\n\n")[0],
            description=help_text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        return made

    data = verb(
        verbs,
        "data",
        "Describe a catalogue folder, look at it, or prepare it.",
        "jmrec data init SHOP       # writes SHOP/dataset.toml, a guess for you to edit\n"
        "  jmrec data check SHOP      # what it holds, and what is wrong with it",
    )
    steps = data.add_subparsers(dest="step", metavar="STEP", required=True, parser_class=Parser)
    init = verb(steps, "init", *DATA_HELP["init"])
    check = verb(steps, "check", *DATA_HELP["check"])
    ready = verb(steps, "prepare", *DATA_HELP["prepare"])
    for each in (init, check, ready):
        each.add_argument("folder", type=Path, help="your catalogue folder")
    for each in (check, ready):
        each.add_argument("--toml", type=Path, help="description to use instead of dataset.toml")
        each.add_argument(
            "--strict", action="store_true", help="any fault of a row is an error (exit code 2)"
        )
    check.add_argument("--json", action="store_true", help="print JSON instead of tables")
    ready.add_argument("--out", type=Path, required=True, help="the folder to write")

    run = verb(
        verbs,
        "run",
        "Run every stage of an experiment in a workdir; started again, it goes on.",
        "jmrec run --config experiments/tpad.py:data=folder,size=small \\\n"
        "    --config.data.dir=SHOP --workdir runs/shop",
    )
    run.add_argument("--workdir", type=Path, required=True, help="where everything is written")
    run.add_argument(
        "--resume", choices=("auto", "never"), default="auto",
        help="auto goes on from what the workdir holds; never refuses a workdir that is not empty",
    )  # fmt: skip
    run.add_argument(
        "--stale", choices=("stop", "rerun"), default="stop",
        help="what to do with a stage that was made with other settings",
    )  # fmt: skip

    sweep = verb(
        verbs,
        "sweep",
        "Run every trial of an experiment's get_hyper, judged on validation; started again, it\n"
        "goes on. It ends with a table and a plot (sweep.csv, sweep.json, sweep.png). Several\n"
        "workers, on several machines that see the workdir, may run the same command.",
        "jmrec sweep --config experiments/tpad.py:size=tiny,students=served \\\n"
        "    --workdir runs/sweep --parallel 2\n"
        "  jmrec sweep ... --optuna lr --trials 4     # a study that chooses and prunes\n"
        "  CUDA_VISIBLE_DEVICES=0,1,2,3 jmrec sweep ... --parallel 4     # one GPU a trial",
    )
    sweep.add_argument(
        "--config", required=True, help="experiment file with get_hyper, arguments after a colon"
    )
    sweep.add_argument("--workdir", type=Path, required=True, help="where every trial is written")
    sweep.add_argument("--parallel", type=int, metavar="N", help="trials at a time (default: 1)")
    how = sweep.add_mutually_exclusive_group()
    how.add_argument(
        "--index", type=int, metavar="I",
        help="run trial I only, from 0 (default: the task's number in a SLURM array or an indexed "
        "Kubernetes job, where --parallel is not given)",
    )  # fmt: skip
    how.add_argument(
        "--optuna", metavar="STUDY",
        help="let Optuna choose trials and end poor ones by their validation curve; the study is "
        "kept in the workdir",
    )  # fmt: skip
    how.add_argument(
        "--wandb-yaml", type=Path, metavar="FILE", help="write the sweep as W&B's YAML, run nothing"
    )
    sweep.add_argument(
        "--trials", type=int, metavar="N", help="with --optuna: how many trials (default: all)"
    )
    sweep.add_argument(
        "--no-prune", action="store_true", help="with --optuna: run every trial to its end"
    )

    embed = verb(
        verbs,
        "embed",
        "Read items that were added to the catalogue folder after training; nothing is trained.",
        "jmrec embed --workdir runs/shop",
    )
    embed.add_argument("--dir", type=Path, help="the folder, if it is not the one of the run")
    evaluate = verb(
        verbs,
        "evaluate",
        "Rank every rule, student and teacher of a run, and write the report.",
        "jmrec evaluate --workdir runs/shop --split=validation --dump-topk runs/shop/topk",
    )
    evaluate.add_argument("--split", choices=("validation", "test"), default="validation")
    evaluate.add_argument("--dump-topk", type=Path, help="folder for what was recommended, npz")
    recommend = verb(
        verbs,
        "recommend",
        "Recommend next items for a session.",
        "jmrec recommend --workdir runs/shop --items 12,57,3 --top 10\n"
        "  jmrec recommend --serve serve --items 12,57,3 --policy policy.toml",
    )
    source = recommend.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, help="the workdir of a run")
    source.add_argument("--serve", type=Path, metavar="DIR", help="what jmrec export wrote")
    recommend.add_argument("--items", required=True, help="item ids of the session, oldest first")
    recommend.add_argument("--top", type=int, default=10, help="how many items to recommend")
    recommend.add_argument(
        "--at", metavar="TIME",
        help="for items that are available for a while: a date, or unix seconds (default: now)",
    )  # fmt: skip
    recommend.add_argument(
        "--times", help="when each item of the session was clicked, for a student that reads pauses"
    )
    recommend.add_argument("--events", help="what each click was, for one that reads event types")
    export = verb(
        verbs,
        "export",
        "Write what is served: a folder that recommends without workdir, teacher or backbone. Its\n"
        "size and speed beside the teacher's go into the run's report.",
        "jmrec export --workdir runs/shop --out serve\n"
        "  jmrec recommend --serve serve --items 12,57,3 --top 10",
    )
    export.add_argument("--out", type=Path, required=True, help="the folder to write")
    export.add_argument(
        "--stablehlo", action="store_true",
        help="add the scores as one StableHLO program, for servers without Python",
    )  # fmt: skip
    plan = verb(
        verbs,
        "plan",
        "Compile an experiment's training steps for hardware that is not here, from shapes alone: "
        "memory a\ndevice, FLOPs, communication, and whether it fits. No data is read.",
        "jmrec plan --config experiments/tpad.py:size=base --topology v5e:16x16 --rules fsdp\n"
        "  jmrec plan --config experiments/tpad.py:size=base --topology h100:8 \\\n"
        "    --stage knowledge --config.knowledge.stack.remat=true --items 100000",
    )
    plan.add_argument(
        "--topology", required=True, help="cpu:N, h100:N, h200:N, v5e:XxY, v6e:XxY or v5p:XxYxZ"
    )
    plan.add_argument("--rules", help="dp, fsdp, tp or fsdp_tp in place of the experiment's")
    plan.add_argument(
        "--stage", action="append", metavar="NAME",
        help="vision, knowledge, transition, distill, student (the one that would serve) or "
        "students/NAME; may be repeated (default: the five)",
    )  # fmt: skip
    plan.add_argument("--items", type=int, help="items of the catalogue (10000, or ToyShop's)")
    plan.add_argument("--vocab", type=int, help="tokens of the tokenizer (the config's limit)")
    plan.add_argument(
        "--fields", metavar="N,N,...",
        help="tokens of each text field of an item (three of the config's limit)",
    )  # fmt: skip
    plan.add_argument("--memory", type=float, metavar="GIB", help="memory of a device")
    plan.add_argument(
        "--without-libtpu", action="store_true",
        help="plan a TPU with the CPU's compiler, as is done where libtpu (the extra tpu-plan) "
        "is not installed",
    )  # fmt: skip
    look = verb(
        verbs,
        "inspect",
        "Print a checkpoint of any mesh, or compare two: settings, arrays, metrics, versions.",
        "jmrec inspect runs/shop/knowledge\n  jmrec inspect runs/shop runs/other",
    )
    look.add_argument("path", type=Path, help="a workdir, a stage, its checkpoints or its params")
    look.add_argument("other", type=Path, nargs="?", help="what to compare it with")
    look.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    for each in (run, plan):
        each.add_argument(
            "--config", required=True, help="experiment file, with arguments after a colon"
        )
    for each in (recommend, export):
        each.add_argument(
            "--student", help="which student of the run (default: the run's choice)"
        )  # fmt: skip
    for each in (recommend, export, evaluate):
        each.add_argument(
            "--policy", type=Path, metavar="FILE",
            help="TOML with lists of item ids: allow (only these), block, pin (these first)",
        )  # fmt: skip
    for each in (recommend, plan, look, export):
        each.add_argument("--json", action="store_true", help="print JSON for machines")
    for each in (embed, evaluate, export):
        each.add_argument("--workdir", type=Path, required=True, help="the workdir of a run")
    return top


def data_init(args: argparse.Namespace) -> None:
    """Run ``jmrec data init``."""
    from jmrec.data.guess import write_guess

    path = write_guess(args.folder)
    print(f"{path} was written: a guess. Read and edit it, then run jmrec data check.")


def data_check(args: argparse.Namespace) -> None:
    """Run ``jmrec data check``."""
    from dataclasses import asdict

    from rich.console import Console

    from jmrec.data.check import check, print_check
    from jmrec.data.folder import read_folder
    from jmrec.data.prepared import build

    raw = read_folder(args.folder, args.toml, strict=args.strict)
    report = check(build(raw), raw)
    for warning in raw.warnings:
        _warn(warning)
    if args.json:
        print(json.dumps({**asdict(report), "warnings": raw.warnings}, indent=2))
    else:
        print_check(report, Console())


def data_prepare(args: argparse.Namespace) -> None:
    """Run ``jmrec data prepare``."""
    from jmrec.data.prepared import prepare

    dataset = prepare(args.folder, args.toml, args.out, strict=args.strict, warn=_warn)
    counts = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    print(f"{args.out}: {len(dataset.items)} items; sessions: {counts}.")


def _warn(sentence: str) -> None:
    print(f"jmrec: warning: {sentence}", file=sys.stderr)


def run(args: argparse.Namespace, overrides: Sequence[str], words: Sequence[str]) -> int:
    """Run ``jmrec run``: here, or as one of the processes of a cluster."""
    from jmrec.cluster.settings import KEPT, read_settings

    settings = read_settings()
    if settings is not None and KEPT not in os.environ:
        from jmrec.cluster.keeper import keep

        return keep(words)

    def work() -> None:
        with stop_on_sigterm():
            from jmrec.config import load_config
            from jmrec.systems import registry

            config = load_config(args.config, list(overrides))
            where = ["--workdir", str(args.workdir)]
            command = ["jmrec", "run", "--config", args.config, *overrides, *where]
            registry.run(
                config, args.workdir, resume=args.resume, stale=args.stale, command=command
            )

    if settings is None:
        work()
        return 0
    from jmrec.cluster import member

    return member.together(settings, work, explain)


def sweep(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Run ``jmrec sweep``."""
    from jmrec.tools import sweep as tool

    tool.sweep(
        args.config, overrides, args.workdir, parallel=args.parallel, index=args.index,
        study=args.optuna, count=args.trials, prune=not args.no_prune, wandb_file=args.wandb_yaml,
    )  # fmt: skip


def embed(args: argparse.Namespace) -> None:
    """Run ``jmrec embed``."""
    from jmrec.systems import registry

    new = registry.embed(args.workdir, args.dir)
    print(f"{new} new items were read." if new else "There are no new items.")


def evaluate(args: argparse.Namespace) -> None:
    """Run ``jmrec evaluate``."""
    from jmrec.systems import registry

    registry.evaluate(args.workdir, args.split, args.dump_topk, args.policy)


def _listed(words: str | None) -> list[str] | None:
    return None if words is None else [word.strip() for word in words.split(",") if word.strip()]


def recommend(args: argparse.Namespace) -> None:
    """Run ``jmrec recommend``."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from jmrec.evaluation.policy import read_time

    session = _listed(args.items) or []
    clicked, events = _listed(args.times), _listed(args.events)
    times = None if clicked is None else [read_time(each) for each in clicked]
    at = None if args.at is None else read_time(args.at)
    if args.serve is not None:
        from jmrec.serving import load

        if args.student is not None:
            raise UserError("--serve has one student; leave out --student, or name a --workdir.")
        found = load(args.serve, args.policy).recommend(session, args.top, at, times, events)
    else:
        from jmrec.systems import serve

        found = serve.recommend(
            args.workdir, session, args.top, args.student, args.policy, at, times, events
        )
    if args.json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        print("No item may be recommended: session, policy and availability leave none.")
        return
    table = Table("", "item", "title", "score")
    for place, each in enumerate(found, 1):
        mark = f"{place} pinned" if each["pinned"] else str(place)
        named = map(escape, (each["item_id"], each["title"]))
        table.add_row(mark, *named, f"{each['score']:.3f}")
    Console().print(table)


def export(args: argparse.Namespace) -> None:
    """Run ``jmrec export``."""
    from jmrec.systems import serve

    section = serve.export(
        args.workdir, args.out, student=args.student, policy=args.policy, stablehlo=args.stablehlo
    )
    if args.json:
        print(json.dumps(section, indent=2))
        return
    for sentence in serve.describe(section):
        print(sentence)


def plan(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Run ``jmrec plan``; what does not fit is a result, and no error."""
    from jmrec.config import load_config
    from jmrec.tools.plan import plan, read_fields, show
    from jmrec.tools.plan_verdict import STAGES, parse_topology

    more = [f"--config.rules={args.rules}"] if args.rules else []
    report = plan(
        load_config(args.config, [*overrides, *more]),
        parse_topology(args.topology, args.memory),
        stages=args.stage or STAGES,
        items=args.items,
        vocab=args.vocab,
        fields=read_fields(args.fields),
        libtpu=not args.without_libtpu,
    )
    print(json.dumps(report, indent=2)) if args.json else show(report)


def inspect(args: argparse.Namespace) -> None:
    """Run ``jmrec inspect``."""
    from jmrec.tools import inspect

    if args.other is None:
        found = inspect.inspect(args.path, args.step)
        print(json.dumps(found, indent=2)) if args.json else inspect.show(found)
    else:
        found = inspect.compare(args.path, args.other, args.step)
        print(json.dumps(found, indent=2)) if args.json else inspect.show_comparison(found)


def explain(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the sentence for what stopped a command; None for a bug."""
    if isinstance(error, UserError):
        return BAD_INPUT, str(error)
    if isinstance(error, Preempted):
        return REQUEUE, f"{error} Start the same command again to go on."
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; start the same command again to go on."
    reason = refusal(error)
    if reason is None and isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}"
    if reason is None:
        return None
    again = "mend that and start the same command again: what was finished is kept."
    return BAD_INPUT, f"{reason}; {again}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    Args:
      argv: The words after ``jmrec``; the process's own where None.

    Returns:
      0, or one of the codes in the module's docstring.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return dispatch(words)
    except (Exception, KeyboardInterrupt, Preempted) as error:
        known = explain(error)
        if known is None:
            raise
        print(f"jmrec: {known[1]}", file=sys.stderr)
        return known[0]


def dispatch(words: Sequence[str]) -> int:
    """Parse the words after ``jmrec`` and run the verb; return the exit code.

    Raises:
      UserError: What was typed is not understood, or the verb says so.
    """
    args, rest = parser().parse_known_args(words)
    if args.verb == "run":
        return run(args, rest, words)
    with stop_on_sigterm():
        with_overrides = {"plan": plan, "sweep": sweep}
        if args.verb in with_overrides:
            with_overrides[args.verb](args, rest)
            return 0
        if rest:
            raise UserError(f"{rest[0]!r} is not understood here (see jmrec {args.verb} --help).")
        verbs = {
            "embed": embed,
            "evaluate": evaluate,
            "recommend": recommend,
            "export": export,
            "inspect": inspect,
        }
        if args.verb == "data":
            {"init": data_init, "check": data_check, "prepare": data_prepare}[args.step](args)
        else:
            verbs[args.verb](args)
    return 0


def entry() -> None:
    """Run the console command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    sys.exit(main())


if __name__ == "__main__":
    entry()
