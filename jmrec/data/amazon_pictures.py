"""The pictures of Amazon Reviews 2023, one an item, fetched slowly from where the items say."""

from collections.abc import Callable
from pathlib import Path

from jmrec.data.amazon_rows import Faults, picture_address, read_lines
from jmrec.data.downloads import Unreachable, Web
from jmrec.data.pictures import picture_files, picture_problem
from jmrec.errors import UserError

HOSTS = ("m.media-amazon.com", "images-na.ssl-images-amazon.com")
"""Where the release says that its pictures are; no other host is asked for one."""
LICENCE = (
    "The pictures belong to their makers and sellers, and the release gives no licence for them: "
    "keep them to yourself."
)
MAX_PICTURE = 10_000_000
"""Bytes of a picture."""
_STOP = 20
"""So many that a server does not answer, one after the other, and no more are asked for."""
_UNREACHABLE = "can not be had now"
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PN": ".png", b"GIF": ".gif", b"RIF": ".webp"}


def fetch_pictures(
    folder: Path,
    items: Path,
    web: Web,
    most: int | None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> int:
    """Fetch pictures that are not there yet into ``images/``, named by the ids of their items.

    Of an item the main picture is taken in one size, ``large`` or else ``hi_res``. One that is
    there is not asked for again, so that a run that was ended goes on where it was.

    Args:
      folder: The catalogue folder.
      items: The packed file of items.
      web: Asks, at its pace; it has `HOSTS` among its hosts.
      most: Of how many items, in the order of the file; None is all.
      warn: Called with a sentence for each kind of picture that can not be had.

    Returns:
      How many items have a picture now, of the first ``most`` that name one.

    Raises:
      UserError: The file of items is damaged, or one picture after the other can not be had.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    there, seen, found, failed = picture_files(folder), set[str](), 0, 0
    faults = Faults(items.name)
    for row in read_lines(items, faults):
        item, url = str(row.get("parent_asin") or ""), picture_address(row)
        if not url or item in seen:
            continue
        if most is not None and len(seen) >= most:
            break
        seen.add(item)
        if item in there:
            found += 1
            continue
        fault = _fetch(images, item, url, web)
        if not fault:
            found, failed = found + 1, 0
            continue
        faults.add(f"a picture {fault}; the item is kept without", left_out=False)
        failed = failed + 1 if fault == _UNREACHABLE else 0
        if failed == _STOP:
            raise UserError(
                f"{_STOP} pictures one after the other can not be had, {url[:100]} the last; run "
                f"the command again later ({found:,} are there)."
            )
    for sentence in faults.sentences():
        warn(sentence)
    return found


def _fetch(images: Path, item: str, url: str, web: Web) -> str:
    """Fetch one picture; return what is wrong with it, "" where it is there."""
    if not item.isascii() or not item.isalnum() or len(item) > 64:
        return "is of an item whose id names no file"
    if not web.may_ask(url):
        return "lies on a host that is not asked for pictures"
    try:
        data = web.read(url, MAX_PICTURE)
    except Unreachable:
        return _UNREACHABLE
    except UserError:
        return "can not be had"
    ending = _ENDINGS.get(data[:3])
    if problem := picture_problem(data) or ("" if ending else "is empty or of another kind"):
        return problem
    side = images / f"{item}.tmp"
    side.write_bytes(data)
    side.replace(images / f"{item}{ending}")
    return ""
