"""``jmrec serve``: recommendations over HTTP."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from jmrec.commands.command import Command
from jmrec.commands.options import add_policy, add_verdicts
from jmrec.errors import UserError
from jmrec.terminal import say, warn

NEEDS = ("starlette", "uvicorn", "jsonschema")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("artefact", type=Path, help="what jmrec export wrote")
    parser.add_argument("--port", type=int, required=True, help="0 is any that is free")
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="the address to listen on (default: 127.0.0.1, this machine alone)",
    )  # fmt: skip
    add_policy(parser)
    add_verdicts(parser)


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"a server needs {', '.join(missing)}; pip install 'jmrec[serve]'.")
    if not 0 <= args.port < 2**16:
        raise UserError(f"--port={args.port} is no port; name one from 0 to 65535.")
    from jmrec.serving.server.run import serve_http

    serve_http(args.artefact, args.host, args.port, args.policy, args.verdicts, say, warn)


COMMAND = Command(
    help="Serve what was exported over HTTP: POST /recommend, GET /items, /health and /schema.\n\n"
    "It listens on this machine alone unless --host names another address; it knows no passwords\n"
    "and no encryption, which are the business of what stands before it. When jmrec export writes\n"
    "the folder anew, the new artefact is taken over within seconds and no request is lost. Every\n"
    "request is a line of the log, with its milliseconds.",
    example="jmrec serve serve --port 8000\n"
    '  curl -H \'Content-Type: application/json\' -d \'{"session": ["12", "57"], "top": 5}\' \\\n'
    "    http://127.0.0.1:8000/recommend",
    options=options,
    action=action,
)
