"""Amazon Reviews 2023 as a catalogue folder: one category, brought, checked and converted.

The release (Hou, Li, He, Yan, Chen, McAuley, "Bridging Language and Items for Retrieval and
Recommendation", https://arxiv.org/abs/2403.03952) has two files a category, gzip of a JSON object a
line. `bring` downloads them, `convert` makes of them what `jmrec data check`, ``prepare`` and
``run`` read like any other folder::

    downloads/                 the two files as they came, with their checksums
    items.parquet              a row an item; those that only reviews name have no texts
    interactions.parquet       a row a review, of one user and item the earliest alone
    dataset.toml               sessions of a user's reviews, a pause of a day between two
    reviews.toml               every review ranked: is it one or two stars?
    items_5core.parquet, interactions_5core.parquet, and
    5core_last_out.toml, 5core_timestamp.toml     the splits of published tables

The 5-core is that of the release: users and items with at least five reviews, counted over all
time, so also over what is test later. jmrec's own ``k_core`` counts training alone.

Memory grows with users, items and a few numbers a review, never with texts: lines are read, written
and forgotten.
"""

import difflib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jmrec.data.amazon_rows import Faults, item_row, read_lines, review_row
from jmrec.data.amazon_tomls import DESCRIPTIONS, FIVE_CORE
from jmrec.data.downloads import Fetched, Web
from jmrec.data.json_rows import text_array
from jmrec.errors import UserError
from jmrec.files import check_regular, read_json, write_json
from jmrec.lock import Changes, only_writer, settle
from jmrec.preemption import look

BASE = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
DOWNLOADS, SUMS, SOURCE = "downloads", "SHA256SUMS", "source.json"
"""Of a folder: what came, its checksums where somebody put them beside, and what tables are of."""
FORMAT = 1
"""Of the tables; a folder of another is made again."""
CATEGORIES = (
    "All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive",
    "Baby_Products", "Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics",
    "Gift_Cards", "Grocery_and_Gourmet_Food", "Handmade_Products", "Health_and_Household",
    "Health_and_Personal_Care", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products",
    "Patio_Lawn_and_Garden", "Pet_Supplies", "Software", "Sports_and_Outdoors",
    "Subscription_Boxes", "Tools_and_Home_Improvement", "Toys_and_Games", "Unknown", "Video_Games",
)  # fmt: skip
_TEXT, _NUMBER = pa.string(), pa.float64()
REVIEWS = pa.schema({
    "user_id": _TEXT, "parent_asin": _TEXT, "timestamp": pa.int64(), "rating": _NUMBER,
    "review": _TEXT, "asin": _TEXT, "verified_purchase": pa.bool_(), "helpful_vote": pa.int32(),
})  # fmt: skip
"""Columns of interactions.parquet; of what comes after ``review`` nothing is read by jmrec."""
ITEMS = pa.schema({
    "parent_asin": _TEXT, "title": _TEXT, "description": _TEXT, "features": _TEXT,
    "details": _TEXT, "categories": _TEXT, "main_category": _TEXT, "store": _TEXT,
    "price": _NUMBER, "average_rating": _NUMBER, "rating_number": pa.int64(),
    "bought_together": _TEXT,
})  # fmt: skip
"""Columns of items.parquet; the last three tell what happened later (``never_use``)."""
_ROWS = 2**14
"""Rows that are held at once."""


def check_category(category: str) -> None:
    """Refuse what is no category of the release.

    Raises:
      UserError: It is none.

    Example:
      >>> check_category("all beauty")
      Traceback (most recent call last):
        ...
      jmrec.errors.UserError: 'all beauty' is no category of Amazon Reviews 2023; did you mean
      'All_Beauty'?
    """
    if category in CATEGORIES:
        return
    lower = {name.lower(): name for name in CATEGORIES}
    near = difflib.get_close_matches(category[:80].lower(), lower, n=1, cutoff=0.0)[0]
    raise UserError(
        f"{category[:80]!r} is no category of Amazon Reviews 2023; did you mean {lower[near]!r}?"
    )


def addresses(category: str, base: str) -> dict[str, str]:
    """Return file name -> address of the files of a category: reviews, then items.

    Example:
      >>> addresses("All_Beauty", "https://host/data")["meta_All_Beauty.jsonl.gz"]
      'https://host/data/raw/meta_categories/meta_All_Beauty.jsonl.gz'
    """
    check_category(category)
    base = base.rstrip("/")
    reviews, items = f"{category}.jsonl.gz", f"meta_{category}.jsonl.gz"
    return {
        reviews: f"{base}/raw/review_categories/{reviews}",
        items: f"{base}/raw/meta_categories/{items}",
    }


def check_folder(folder: Path, category: str) -> None:
    """Refuse a folder that holds something else than this category.

    Raises:
      UserError: It does.
    """
    source, held = folder / SOURCE, ""
    if source.exists():
        known = read_json(source)
        held = str(known.get("category")) if isinstance(known, dict) else "something"
    elif folder.exists() and not folder.is_dir():
        held = "no folder, but a file"
    elif any(folder.glob("dataset.toml")) or any(folder.glob("items.*")):
        held = "another catalogue"
    if held not in ("", category):
        raise UserError(f"{folder} holds {held[:80]}; name another folder for {category}.")


def missing(folder: Path, category: str, web: Web) -> dict[str, int | None]:
    """Return file name -> size in bytes of what is still to be downloaded, asking the server.

    Args:
      folder: The catalogue folder, made or not.
      category: One of `CATEGORIES`.
      web: Where they are.

    Returns:
      Sizes; None where the server does not tell.

    Raises:
      UserError: There is no such file, the server does not answer, or see `check_folder`.
    """
    wanted = addresses(category, web.base)
    check_folder(folder, category)
    there = folder / DOWNLOADS
    return {name: web.size(url) for name, url in wanted.items() if not (there / name).exists()}


def bring(
    folder: Path, category: str, web: Web, sizes: Mapping[str, int | None], sums: Mapping[str, str]
) -> dict[str, Fetched]:
    """Download the files of a category, or go on with those that are there in part.

    Args:
      folder: The catalogue folder.
      category: One of `CATEGORIES`.
      web: Where they are.
      sizes: What `missing` returned.
      sums: File name -> SHA-256, for those that are known.

    Returns:
      File name -> what is known of it: reviews, then items.

    Raises:
      UserError: One can not be had, or is not what it should be; or the disk is too small.
    """
    there = folder / DOWNLOADS
    there.mkdir(parents=True, exist_ok=True)
    # As much again for the tables.
    need, free = 2 * sum(filter(None, sizes.values())), shutil.disk_usage(there).free
    if need > free:
        raise UserError(
            f"{folder} has {free:,} bytes free and {category} needs about {need:,}; make room, or "
            "name a folder on another disk."
        )
    return {
        name: web.fetch(url, there / name, expected=sizes.get(name), sha256=sums.get(name, ""))
        for name, url in addresses(category, web.base).items()
    }


def make_folder(
    folder: Path,
    category: str,
    web: Web,
    *,
    sizes: Mapping[str, int | None] | None = None,
    sums: Mapping[str, str] | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> dict[str, int]:
    """Download a category, where it is not there yet, and make a catalogue folder of it.

    Args:
      folder: The folder; made where it is missing.
      category: One of `CATEGORIES`.
      web: Where the release is.
      sizes: What `missing` returned; None asks.
      sums: File name -> SHA-256, for those that are known; ``downloads/SHA256SUMS`` where None,
        if there is one.
      warn: Called with a sentence for each kind of line that is left out or mended.

    Returns:
      See `convert`.

    Raises:
      UserError: See `bring` and `convert`; or another process makes the folder.
    """
    check_folder(folder, category)
    with only_writer(folder, warn):
        beside = folder / DOWNLOADS / SUMS
        if sums is None:
            sums = read_sums(beside) if beside.is_file() else {}
        if sizes is None:
            sizes = missing(folder, category, web)
        return convert(folder, category, bring(folder, category, web, sizes, sums), warn)


def read_sums(path: Path) -> dict[str, str]:
    """Return file name -> SHA-256 of a file as ``sha256sum`` writes it.

    Raises:
      UserError: A line of it is none of these.
    """
    found = {}
    check_regular(path, 10_000_000)
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        digest, _, name = line.strip().partition(" ")
        if not line.strip():
            continue
        if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef") or not name.strip():
            raise UserError(
                f"{path}, line {number}: no SHA-256 and name of a file; write it as sha256sum does."
            )
        found[name.strip().lstrip("*").rpartition("/")[2]] = digest.lower()
    return found


def convert(
    folder: Path,
    category: str,
    fetched: dict[str, Fetched],
    warn: Callable[[str], None] = lambda sentence: None,
) -> dict[str, int]:
    """Make the tables and descriptions of a folder of its downloads; all of them or none.

    A description that is there stays as it is. Tables that were made of the same files stay too.

    Args:
      folder: The catalogue folder; who calls holds it (`jmrec.lock.only_writer`).
      category: One of `CATEGORIES`.
      fetched: What `bring` returned.
      warn: Called with a sentence for each kind of line that is left out or mended.

    Returns:
      What the tables hold: "items", "users", "interactions", and the same of the 5-core.

    Raises:
      UserError: A file is damaged, or most of its lines are none of the release.
    """
    made = {
        "format": FORMAT, "category": category, "release": "Amazon Reviews 2023",
        "files": {name: vars(each) for name, each in fetched.items()},
    }  # fmt: skip
    before = read_json(folder / SOURCE) if (folder / SOURCE).exists() else {}
    if _same(before, made):
        return dict(before["counts"])
    changes = Changes(folder)
    reviews, items = (folder / DOWNLOADS / name for name in fetched)
    try:
        counts = _tables(changes, reviews, items, warn)
        for name, text in DESCRIPTIONS.items():
            core = name.startswith(FIVE_CORE)
            if (counts["interactions_5core"] or not core) and not (folder / name).exists():
                changes.new(name).write_text(text.replace("CATEGORY", category), encoding="utf-8")
        write_json(changes.new(SOURCE), made | {"counts": counts})
    except BaseException:
        settle(folder)  # removes what was made so far
        raise
    changes.commit()
    return counts


def _same(before: Any, made: dict[str, Any]) -> bool:
    """Whether a folder's tables are already made of the same files."""
    if not isinstance(before, dict) or not isinstance(before.get("counts"), dict):
        return False

    def key(of: dict[str, Any]) -> Any:
        files = of.get("files")
        sums = {n: f.get("sha256") for n, f in files.items()} if isinstance(files, dict) else None
        return [of.get("format"), of.get("category"), sums]

    return bool(key(before) == key(made))


def _tables(
    changes: Changes, reviews: Path, items: Path, warn: Callable[[str], None]
) -> dict[str, int]:
    """Write the tables of a folder; return what they hold."""
    every = changes.folder / f"{DOWNLOADS}/reviews.parquet.tmp"
    faults, catalogue = Faults(items.name), changes.new("items.parquet")
    try:
        known = _write(every, _reviews(reviews, warn), REVIEWS)
        with pq.ParquetWriter(catalogue, ITEMS, compression="zstd") as writer:
            ids = _write_items(writer, items, faults)
            for sentence in faults.sentences():
                warn(sentence)
            if not known:
                raise UserError(f"{reviews} has no review that can be read; delete it, try again.")
            item, names = _codes(every, "parent_asin")
            user, _ = _codes(every, "user_id")
            time = pq.read_table(every, columns=["timestamp"])["timestamp"].to_numpy()
            alone = [name for name in names.to_pylist() if name not in ids]
            if alone:
                rest = [(name, "", "", "", "", "", "", "", None, None, None, "") for name in alone]
                writer.write_table(_table(rest, ITEMS))
                warn(
                    f"{items.name}: items that reviews name are missing, such as {alone[0]}; they "
                    f"have no texts (items like that: {len(alone):,})"
                )
        once = earliest(user, item, time)
        if (again := len(once) - int(once.sum())) > 0:
            warn(
                f"{reviews.name}: a user reviews an item again; the earliest review alone is kept "
                f"(reviews left out: {again:,})"
            )
        core = core_of(user, item, once, 5)
        _choose(every, changes.new("interactions.parquet"), once)
        counts = {"items": len(ids) + len(alone)} | _counts(user, item, once, "")
        counts |= {"items_5core": 0} | _counts(user, item, core, "_5core")
        for name in () if core.any() else ("items_5core.parquet", "interactions_5core.parquet"):
            if (changes.folder / name).exists():  # of other files
                changes.remove(name)
        if not core.any():
            warn(
                f"{reviews.name}: no user and item are left in the 5-core, so that there are no "
                f"descriptions {FIVE_CORE}*.toml"
            )
        else:
            wanted = names.take(pa.array(np.unique(item[core])))
            _choose(every, changes.new("interactions_5core.parquet"), core)
            counts["items_5core"] = _choose_items(
                catalogue, changes.new("items_5core.parquet"), wanted
            )
    finally:
        every.unlink(missing_ok=True)
    return counts


def _counts(user: np.ndarray, item: np.ndarray, keep: np.ndarray, suffix: str) -> dict[str, int]:
    users = len(np.unique(user[keep]))
    return {f"users{suffix}": users, f"interactions{suffix}": int(keep.sum())}


def _reviews(path: Path, warn: Callable[[str], None]) -> Iterator[tuple[Any, ...]]:
    faults = Faults(path.name)
    for row in read_lines(path, faults):
        if (cells := review_row(row, faults)) is not None:
            yield cells
    for sentence in faults.sentences():
        warn(sentence)


def _write_items(writer: pq.ParquetWriter, path: Path, faults: Faults) -> set[str]:
    """Write the items of a file, of one id the first alone; return their ids."""
    ids: set[str] = set()
    rows: list[tuple[Any, ...]] = []
    for row in read_lines(path, faults):
        if (cells := item_row(row, faults)) is None:
            continue
        if cells[0] in ids:
            faults.add("a second line of an item; the first is kept", left_out=False)
            continue
        ids.add(cells[0])
        rows.append(cells)
        if len(rows) == _ROWS:
            writer.write_table(_table(rows, ITEMS))
            rows.clear()
    writer.write_table(_table(rows, ITEMS))
    return ids


def _write(path: Path, cells: Iterator[tuple[Any, ...]], schema: pa.Schema) -> int:
    """Write rows, some at a time; return how many there are."""
    count, rows = 0, []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in cells:
            rows.append(row)
            if len(rows) == _ROWS:
                writer.write_table(_table(rows, schema))
                count += len(rows)
                rows.clear()
        writer.write_table(_table(rows, schema))
    return count + len(rows)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns: Any = list(zip(*rows)) if rows else [()] * len(schema)
    arrays = [
        text_array(list(cells)) if each.type == _TEXT else pa.array(cells, each.type)
        for cells, each in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _codes(path: Path, name: str) -> tuple[np.ndarray, pa.Array]:
    """Return the codes of a column of texts (int32 [N]) and the texts by code."""
    column = pq.read_table(path, columns=[name], read_dictionary=[name])[name]
    whole = column.unify_dictionaries().combine_chunks()
    return whole.indices.to_numpy(), whole.dictionary


def earliest(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return which events are the earliest of their user and item, bool [N].

    Args:
      user: Codes, int [N].
      item: Codes, int [N].
      time: Numbers [N]; of one time the first event counts.

    Example:
      >>> earliest(np.array([0, 0, 1]), np.array([5, 5, 5]), np.array([7, 3, 9])).tolist()
      [False, True, True]
    """
    order = np.lexsort((time, item, user))  # stable
    new = np.diff(user[order], prepend=-1) != 0
    new |= np.diff(item[order], prepend=-1) != 0
    keep = np.zeros(len(user), bool)
    keep[order[new]] = True
    return keep


def core_of(user: np.ndarray, item: np.ndarray, keep: np.ndarray, k: int) -> np.ndarray:
    """Return which events are left once users and items with fewer than k of them are gone.

    They go again and again, until all that are left have as many.

    Args:
      user: Codes, int [N], from 0.
      item: Codes, int [N], from 0.
      keep: bool [N], the events that there are.
      k: How many events each user and each item has to have.

    Returns:
      bool [N].

    Example:
      >>> user, item = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
      >>> core_of(user, item, np.ones(5, bool), 2).tolist()
      [True, True, True, True, False]
    """
    while True:
        left = keep.copy()
        for codes in (user, item):
            left &= np.bincount(codes[keep], minlength=len(codes) and codes.max() + 1)[codes] >= k
        if left.sum() == keep.sum():
            return left
        keep = left


def _choose(source: Path, out: Path, keep: np.ndarray) -> None:
    """Write the rows of a table where ``keep`` (bool [N]), in their order."""
    start = 0
    with pq.ParquetWriter(out, REVIEWS, compression="zstd") as writer:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=_ROWS):
            look()
            mask = pa.array(keep[start : start + batch.num_rows])
            writer.write_table(pa.Table.from_batches([batch]).filter(mask))
            start += batch.num_rows


def _choose_items(source: Path, out: Path, ids: pa.Array) -> int:
    """Write the items of these ids, in their order; return how many there are."""
    count = 0
    with pq.ParquetWriter(out, ITEMS, compression="zstd") as writer:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=_ROWS):
            look()
            found = pa.Table.from_batches([batch])
            found = found.filter(pc.is_in(found["parent_asin"], value_set=ids))
            writer.write_table(found)
            count += found.num_rows
    return count
