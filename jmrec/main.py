"""The command line: dispatches to the verbs of `jmrec.words`, turns errors into one sentence.

Exit codes: 0 done; 2 something that the user can mend; 75 stopped by SIGTERM after saving, or by
the loss of another process of the run, to be started again with the same command; 130 interrupted
by the keyboard (a fit saves first; a second Ctrl-C ends it at once), not to be started again.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jmrec.errors import REQUEUE, Interrupted, Preempted, UserError, refusal
from jmrec.preemption import stop_on_sigterm
from jmrec.words import parser

BAD_INPUT, INTERRUPTED = 2, 130


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

    raw = read_folder(args.folder, _described(args.toml), strict=args.strict)
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

    dataset = prepare(args.folder, _described(args.toml), args.out, strict=args.strict, warn=_warn)
    counts = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    print(f"{args.out}: {len(dataset.items)} items; sessions: {counts}.")


def _described(toml: Path | None) -> Path | None:
    from jmrec.config import resolve_path

    return None if toml is None else resolve_path(toml)


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
            how = {"resume": args.resume, "stale": args.stale, "command": command}
            if args.origins == 1:
                registry.run(config, args.workdir, **how)
            else:
                from jmrec.systems.rolling import roll

                command.append(f"--origins={args.origins}")
                roll(config, args.workdir, args.origins, **how)

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


def _finished(workdir: Path) -> None:
    """Refuse a workdir without a finished run, before anything is imported or made there."""
    if not workdir.is_dir():
        raise UserError(
            f"{workdir} is no folder: there is no finished run; name the workdir of one."
        )
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} holds no finished run; make one with jmrec run.")


def embed(args: argparse.Namespace) -> None:
    """Run ``jmrec embed``."""
    _finished(args.workdir)
    from jmrec.systems import runs

    new = runs.embed(args.workdir, args.dir)
    print(f"{new} new items were read." if new else "There are no new items.")


def evaluate(args: argparse.Namespace) -> None:
    """Run ``jmrec evaluate``."""
    _finished(args.workdir)
    from jmrec.systems import runs

    runs.evaluate(args.workdir, args.split, args.dump_topk, args.policy, args.by)


def _listed(words: str | None) -> list[str] | None:
    return None if words is None else [word.strip() for word in words.split(",") if word.strip()]


def recommend(args: argparse.Namespace) -> None:
    """Run ``jmrec recommend``."""
    session = _listed(args.items)
    if not session:
        raise UserError("name at least one item of the session (--items).")
    if args.top < 1:
        raise UserError("ask for 1 item or more (--top).")
    if args.workdir is not None:
        _finished(args.workdir)
    if sys.stderr.isatty():  # jax and a compilation: seconds
        print(f"loading {args.workdir or args.serve} ...", file=sys.stderr)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from jmrec.evaluation.policy import read_time

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
    _finished(args.workdir)
    from jmrec.systems import serve

    section = serve.export(
        args.workdir, args.out, student=args.student, policy=args.policy, stablehlo=args.stablehlo
    )
    if args.json:
        print(json.dumps(section, indent=2))
        return
    for sentence in serve.describe(section):
        print(sentence)


def convert(args: argparse.Namespace) -> None:
    """Run ``jmrec convert``."""
    from jmrec.systems.pretrained import convert_to
    from jmrec.systems.registry import is_run
    from jmrec.systems.runs import convert as convert_run

    if is_run(Path(args.source)):
        if args.family is not None:
            raise UserError(f"{args.source} is a run and knows its family; leave out --family.")
        found = convert_run(Path(args.source), args.out, args.dtype)
    else:
        found = convert_to(args.source, args.out, args.family, args.dtype)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    origin = found["provenance"]
    print(
        f"{args.out}: {found['family']}, {found['parameters']:,} parameters from "
        f"{origin['source']} (licence: {origin['licence'] or 'not stated'})."
    )


def plan(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Run ``jmrec plan``; what does not fit is a result, and no error."""
    from jmrec.config import load_config
    from jmrec.tools.plan import plan, read_fields, show
    from jmrec.tools.plan_verdict import parse_topology

    more = [f"--config.rules={args.rules}"] if args.rules else []
    report = plan(
        load_config(args.config, [*overrides, *more]),
        parse_topology(args.topology, args.memory),
        stages=args.stage or (),
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
        print(json.dumps(found, indent=2)) if args.json else inspect.show_comparison(
            found, args.all
        )


def explain(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the sentence for what stopped a command; None for a bug."""
    if isinstance(error, UserError):
        return BAD_INPUT, str(error)
    if isinstance(error, Preempted):
        return REQUEUE, f"{error} Start the same command again to go on."
    if isinstance(error, Interrupted):
        return INTERRUPTED, f"{error}."
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
            "convert": convert,
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
