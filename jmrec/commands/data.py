"""``jmrec data``: describe a catalogue folder, look at it, prepare it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jmrec.commands.command import Command, Parser, add_parser
from jmrec.commands.options import output
from jmrec.data.beam.options import RUNNERS, read_runner
from jmrec.errors import UserError
from jmrec.terminal import console, say, warn

STEPS = {
    "init": (
        """Write a first dataset.toml for a folder: a guess of what its columns mean, to be edited.

Put two tables in the folder, CSV (any common delimiter and encoding, gzip or not), Parquet or JSON
(an object a line): one with a row for each item (its id, a title, whatever else you know), one with
a row for each click, view or purchase (the item's id, a session or a user, a time). Either may be
several files of the same columns, such as one of each month. Pictures go into images/ or another
folder. Names of files and columns are free. A comment above each line says why it was guessed. A
dataset.toml that exists is never overwritten.""",
        """products.csv has ArtNr;Bezeichnung;Preis and clicks.csv has Kunde;ArtNr;Zeit:

  $ jmrec data init SHOP
  SHOP/dataset.toml was written: a guess. Read and edit it, then run jmrec data check.
  $ cat SHOP/dataset.toml
  ...
  [items]
  # The table with one row for each item.
  file = "products.csv"
  # All values differ, and clicks.csv names them in 'ArtNr'.
  id = "ArtNr"
  ...
  $ jmrec data check SHOP""",
    ),
    "check": (
        """Validate a catalogue folder and print what a scientist wants to know first.

What makes a folder meaningless is always an error: one sentence that names file, row and remedy,
and exit code 2. That is a table that is missing, can not be read or unpacked, or lies outside the
folder; a header or a dataset.toml that is wrong; too few sessions.

A fault of single rows (an unknown item id, a second row for an item, a broken number or time, a
row with too many cells, a picture that does not decode, ...) is, without --strict, left out row by
row, or taken as an empty cell, and counted: one warning for each kind of fault, naming the first
row. Where more than half of the rows have it, it is an error all the same. Things that only look
wrong (a formula, two ids that differ in case) are kept and counted.

With --strict every warning is an error. jmrec run reads as without --strict.

Where there are reviews, or a label to rank by, it says of these too: how long, how many are empty
or occur twice, whether they look English, how often the label occurs and whether that changes in
time, and how many rows have earlier reviews of their item and user. Rows with labels need no
sessions: --no-sessions leaves them out, where the data has too few.

It shows from when to when times run, how many sessions are of guests, how many rows stand there
twice, and in which languages the texts seem to be. A key of dataset.toml without effect is said.

Nothing is ever written by check, and nothing is read outside the folder.""",
        """$ jmrec data check SHOP
  jmrec: warning: interactions.csv, row 7: the item id 'i99' is not in items.csv; add the item
  or remove the event (rows left out: 3).
  Data: shop
  ...
  $ jmrec data check SHOP --strict; echo $?
  jmrec: interactions.csv, row 7: the item id 'i99' is not in items.csv; add the item or remove
  the event.
  2

  jmrec data check ../shared/data/movies --toml experiments/data/movies.toml""",
    ),
    "prepare": (
        """Validate a catalogue folder, make sessions, split them by time, write what models read.

The folder is checked first as jmrec data check does, with the same rule for broken rows and the
same --strict. --out appears whole or not at all; started again with the same folder and settings it
only reads what is there. jmrec run does this by itself: prepare serves your own programs
(jmrec.data.prepared.load_prepared, or TFDS without jmrec).

Items and pictures are ArrayRecord files, sessions and rows with labels flat arrays (safetensors).
With --records these are written as ArrayRecord files too, which takes longer, and which only your
own programs read: tfds.builder_from_directory(OUT + "/jmrec_data/sessions/1.0.0").

min_session_length and k_core of dataset.toml filter training only. Validation and test keep every
session, and have no say in what is filtered.

Where dataset.toml declares a label, all rows are written beside the sessions, with their labels and
reviews, in the order of time; --no-sessions writes these alone.

With --runner events and pictures are worked on by Apache Beam, on this machine or on a cluster, and
the result is the same, record for record. Killed, it goes on behind what it had finished. It needs
the extra: pip install 'jmrec[beam]'.""",
        """$ jmrec data prepare SHOP --out runs/shop-prepared
  runs/shop-prepared: 3322 items; sessions: 2552 train, 319 validation, 320 test.

  jmrec data prepare SHOP --out runs/shop-prepared --runner direct \\
    --runner-option direct_num_workers=4 --runner-option direct_running_mode=multi_processing""",
    ),
    "anonymise": (
        """Write a catalogue folder without what tells who somebody is.

Ids of sessions and users (and of items, with --items) become codes of a key, HMAC-SHA256, which
nobody turns back without it. Without --key a new key is written to OUT.key, which its owner alone
can read; --key OUT.key gives the same codes again. In titles, descriptions, texts, categories and
reviews a tag such as [email] takes the place of each detail that is found: e-mail, phone, postal
address, payment card, IBAN, name, date of birth, IP, number plate, a link with a user in it.
Pictures are written anew from their pixels (PNG, upright), without EXIF and thumbnails, under new
names. Times become the start of their hour, day or week with --times, in the order that they had.

Only what dataset.toml names is written; other columns are left behind, and said. The report, also
in OUT.report.txt, counts what was found and says what is not found. Look at it, and at the data,
before you give them away. It needs the extra: pip install 'jmrec[anonymise]'.""",
        """$ jmrec data anonymise SHOP --out SAFE --times=day
  SAFE: 13,120 events; ids as codes: 3,191 sessions, 902 users (key: SAFE.key).
  Details in texts, in place of which a tag stands: [email] 12, [phone] 7.
  ...
  $ jmrec data check SAFE""",
    ),
    "amazon": (
        """Download a category of Amazon Reviews 2023 and make a catalogue folder of it.

Without --yes it asks the server for sizes alone, tells them, and ends. With it the category's two
files come into FOLDER/downloads, are checked and converted. A download that ended in the middle
goes on where it was; one that was changed meanwhile begins anew. Files of the release that you have
already go into FOLDER/downloads: then nothing is asked of the network.

Lines that are cut, too long or lack what they need are left out and counted, as jmrec data check
does with rows. The folder has a description of sessions (dataset.toml), one that ranks reviews
(reviews.toml), and those of published tables: 5core_last_out.toml and 5core_timestamp.toml.

--pictures fetches one picture an item, two a second, from the hosts that the release names, into
FOLDER/images; it goes on where it was. They belong to their makers: keep them to yourself.""",
        """$ jmrec data amazon BEAUTY --category All_Beauty
  All_Beauty.jsonl.gz: ... bytes.
  ...
  $ jmrec data amazon BEAUTY --category All_Beauty --yes
  $ jmrec data check BEAUTY
  $ jmrec run --config session:data=folder,encoder=sasrec --config.data.dir=BEAUTY \\
    --config.data.toml=BEAUTY/5core_timestamp.toml --workdir runs/beauty""",
    ),
}
"""Step -> its help and a worked example."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the steps, each with its options."""
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True, parser_class=Parser)
    init, check, ready, safe, amazon = (
        add_parser(steps, name, *said) for name, said in STEPS.items()
    )
    for each in (init, check, safe):
        each.add_argument("folder", type=Path, help="your catalogue folder")
    ready.add_argument(
        "folder", help="your catalogue folder; with --runner also gs://... or s3://..."
    )
    _amazon_options(amazon)
    for each in (check, ready, safe):
        each.add_argument("--toml", type=Path, help="description to use instead of dataset.toml")
        each.add_argument(
            "--strict", action="store_true", help="any fault of a row is an error (exit code 2)"
        )
    for each in (check, ready):
        each.add_argument(
            "--no-sessions",
            action="store_true",
            help="make no sessions: the data set is its rows with labels",
        )
    ready.add_argument(
        "--records",
        action="store_true",
        help="write sessions and rows with labels as ArrayRecord too, for other programs",
    )
    ready.add_argument(
        "--runner", choices=list(RUNNERS),
        help="prepare by Apache Beam: on this machine (direct) or on a cluster",
    )  # fmt: skip
    ready.add_argument(
        "--runner-option", action="append", default=[], metavar="KEY=VALUE",
        help="an option of Beam's pipelines, such as region=europe-west1; may be repeated",
    )  # fmt: skip
    ready.add_argument(
        "--staging", default="", metavar="FOLDER",
        help="where workers leave their files, a path or an address of Beam's such as gs://... "
        "(default: beside --out)",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="print JSON instead of tables")
    for each in (ready, safe):
        each.add_argument("--out", type=Path, required=True, help="the folder to write")
    safe.add_argument("--key", type=Path, help="the key file of an earlier run, for the same codes")
    safe.add_argument("--items", action="store_true", help="item ids become codes too")
    safe.add_argument(
        "--times", choices=("hour", "day", "week"), default="", help="what times are coarsened to"
    )


def _amazon_options(amazon: Parser) -> None:
    amazon.add_argument("folder", type=Path, help="the catalogue folder to make, or to go on with")
    amazon.add_argument("--category", required=True, help="of the release, such as All_Beauty")
    amazon.add_argument("--base", help="address of the release, or of a mirror with its folders")
    amazon.add_argument("--yes", action="store_true", help="download what was told")
    amazon.add_argument(
        "--sha256", type=Path, metavar="FILE",
        help="checksums that the files must have, as sha256sum writes them (default: "
        "FOLDER/downloads/SHA256SUMS, if there is one)",
    )  # fmt: skip
    amazon.add_argument(
        "--host", action="append", default=[],
        help="a further host that may be asked, where the base leads there; may be repeated",
    )  # fmt: skip
    amazon.add_argument(
        "--pictures", default="none", metavar="N",
        help="of how many items a picture is fetched: none (default), a number, all",
    )  # fmt: skip


def action(args: argparse.Namespace, _: Sequence[str]) -> None:
    """Take one of the steps."""
    steps = {
        "init": _init, "check": _check, "prepare": _prepare, "anonymise": _anonymise,
        "amazon": _amazon,
    }  # fmt: skip
    steps[args.step](args)


def _init(args: argparse.Namespace) -> None:
    from jmrec.data.guess import write_guess
    from jmrec.data.guess_lines import NOTE

    path = write_guess(args.folder)
    for line in path.read_text(encoding="utf-8").splitlines():  # what one has to decide
        if line.startswith(NOTE):
            warn(line.removeprefix(NOTE))
    say(f"{path} was written: a guess. Read and edit it, then run jmrec data check.")


def _check(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from jmrec.data.check import check, print_check
    from jmrec.data.folder import read_folder
    from jmrec.data.prepared import build

    raw = read_folder(args.folder, _description(args), strict=args.strict)
    report = check(build(raw, sessions=not args.no_sessions), raw)
    for warning in raw.warnings:
        warn(warning)
    found = {**asdict(report), "warnings": raw.warnings}
    output(found, args.json, lambda _: print_check(report, console()))


def _prepare(args: argparse.Namespace) -> None:
    settings: dict[str, Any] = {
        "sessions": not args.no_sessions, "strict": args.strict, "with_records": args.records,
        "warn": warn,
    }  # fmt: skip
    toml = _description(args)
    if args.runner:
        runner = read_runner(args.runner, args.runner_option, args.staging)
        from jmrec.data.beam.driver import prepare as by_pipelines

        dataset = by_pipelines(args.folder, toml, args.out, runner=runner, **settings)
    else:
        from jmrec.data.prepared import prepare

        if args.runner_option or args.staging:
            raise UserError("--runner-option and --staging need --runner; add it.")
        dataset = prepare(args.folder, toml, args.out, **settings)
    counts = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    said = "" if args.no_sessions else f"; sessions: {counts}"
    if dataset.ratings is not None:
        said += f"; {len(dataset.ratings)} rows with the label {dataset.ratings.label}"
    say(f"{args.out}: {len(dataset.items)} items{said}.")


def _anonymise(args: argparse.Namespace) -> None:
    from jmrec.data.anonymise import anonymise

    report = anonymise(
        args.folder,
        args.out,
        toml=_description(args),
        key=args.key,
        items=args.items,
        times=args.times,
        strict=args.strict,
    )
    for warning in report.warnings:
        warn(warning)
    for line in report.lines():
        say(line)


def _amazon(args: argparse.Namespace) -> None:
    from jmrec.data.amazon import BASE, DOWNLOADS, addresses, make_folder, missing, read_sums
    from jmrec.data.amazon_pictures import HOSTS, LICENCE, fetch_pictures
    from jmrec.data.downloads import Web

    if not (args.pictures in ("none", "all") or args.pictures.isdecimal()):
        raise UserError(f"--pictures is {args.pictures!r}; give none, a number or all.")
    web = Web(args.base or BASE, args.host, warn=warn, progress=_Tenths())
    sizes = missing(args.folder, args.category, web)
    for name, size in sizes.items():
        say(f"{name}: " + ("a size that is not told." if size is None else f"{size:,} bytes."))
    if sizes and not args.yes:
        say(f"Nothing was downloaded. Give --yes to bring it into {args.folder}.")
        return
    sums = None if args.sha256 is None else read_sums(args.sha256)
    counts = make_folder(args.folder, args.category, web, sizes=sizes, sums=sums, warn=warn)
    said = "{items:,} items, {users:,} users, {interactions:,} interactions; in the 5-core "
    said += "{items_5core:,}, {users_5core:,} and {interactions_5core:,}."
    say(f"{args.folder}: {said.format(**counts)}")
    if args.pictures != "none":
        say(LICENCE)
        slow = Web(args.base or BASE, [*args.host, *HOSTS], pace=0.5, warn=warn)
        items = args.folder / DOWNLOADS / list(addresses(args.category, slow.base))[1]
        most = None if args.pictures == "all" else int(args.pictures)
        found = fetch_pictures(args.folder, items, slow, most, warn)
        say(f"{args.folder}/images: pictures of {found:,} items.")


class _Tenths:
    """Says of a download each time that one more tenth of it is there."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}

    def __call__(self, url: str, have: int, of: int | None) -> None:
        """Say how far a file is; see `jmrec.data.downloads.Web`."""
        tenth = have // 10**9 if not of else 10 * have // of
        if tenth > self.told.get(url, 0):
            self.told[url] = tenth
            far = f"{tenth:,} GB" if not of else f"{10 * tenth} %"
            say(f"{url.rpartition('/')[2]}: {far}")


def _description(args: argparse.Namespace) -> Path | None:
    from jmrec.config import resolve_path

    return None if args.toml is None else resolve_path(args.toml)


COMMAND = Command(
    help="Describe a catalogue folder, look at it, or prepare it.",
    example="jmrec data init SHOP       # writes SHOP/dataset.toml, a guess for you to edit\n"
    "  jmrec data check SHOP      # what it holds, and what is wrong with it",
    options=options,
    action=action,
)
