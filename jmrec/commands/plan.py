"""``jmrec plan``: hardware that is not here."""

import argparse
from collections.abc import Sequence

from jmrec.commands.command import Command
from jmrec.commands.options import add_config, add_json, add_overrides, output


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--topology", required=True, help="cpu:N, h100:N, h200:N, v5e:XxY, v6e:XxY or v5p:XxYxZ"
    )
    parser.add_argument("--rules", help="dp, fsdp, tp or fsdp_tp in place of the experiment's")
    parser.add_argument(
        "--stage", action="append", metavar="NAME",
        help="a stage that trains, such as knowledge or students/NAME; student is the one that "
        "would serve; may be repeated (default: all, and of the students that one)",
    )  # fmt: skip
    parser.add_argument("--items", type=int, help="items of the catalogue (10000, or ToyShop's)")
    parser.add_argument("--vocab", type=int, help="tokens of the tokenizer (the config's limit)")
    parser.add_argument(
        "--fields", metavar="N,N,...",
        help="tokens of each text field of an item (as many fields as ToyShop has, else three, of "
        "the config's limit); those of a run are in its data/reader.json",
    )  # fmt: skip
    parser.add_argument(
        "--interactions", type=int, metavar="N",
        help="clicks of the training data: says how many hours the stages over sessions train",
    )  # fmt: skip
    parser.add_argument("--epochs", type=float, default=1.0, help="how often they are read (1)")
    parser.add_argument(
        "--use", type=float, default=0.4, metavar="SHARE",
        help="of the devices' peak FLOP/s that is reached (0.4)",
    )  # fmt: skip
    parser.add_argument("--price", type=float, help="of one device for an hour, in any unit")
    parser.add_argument("--memory", type=float, metavar="GIB", help="memory of a device")
    parser.add_argument(
        "--without-libtpu", action="store_true",
        help="plan a TPU with the CPU's compiler, as is done where libtpu (the extra tpu-plan) "
        "is not installed",
    )  # fmt: skip
    add_config(parser)
    add_overrides(parser)
    add_json(parser)


def action(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Plan; what does not fit is a result, and no error."""
    from jmrec.config import load_config
    from jmrec.tools.plan.plan import plan, read_fields, read_length, show
    from jmrec.tools.plan.verdict import parse_topology

    more = [f"--config.rules={args.rules}"] if args.rules else []
    report = plan(
        load_config(args.config, [*overrides, *more]),
        parse_topology(args.topology, args.memory),
        stages=args.stage or (),
        items=args.items,
        vocab=args.vocab,
        fields=read_fields(args.fields),
        libtpu=not args.without_libtpu,
        length=read_length(args.interactions, args.epochs, args.use, args.price),
    )
    output(report, args.json, show)


COMMAND = Command(
    help="Compile an experiment's training steps for hardware that is not here, from shapes alone: "
    "memory a\ndevice, FLOPs, communication, and whether it fits. No data is read.",
    example="jmrec plan --config experiments/tpad.py:size=base --topology v5e:16x16 --rules fsdp\n"
    "  jmrec plan --config experiments/tpad.py:size=base --topology h100:8 \\\n"
    "    --stage knowledge --config.knowledge.stack.remat=true --items 100000",
    options=options,
    action=action,
    takes_overrides=True,
)
