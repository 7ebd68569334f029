"""Stage "describe": what was said of an item, or by a user, becomes one short text a cut."""

from functools import cached_property
from pathlib import Path
from typing import Any

from jmrec.config import choose
from jmrec.data.known import Cuts
from jmrec.errors import UserError
from jmrec.systems.mmrec.cache import TEXTS, describe, read_texts
from jmrec.systems.mmrec.checks import count_invented, invented, shown_to
from jmrec.systems.mmrec.data import GROUPS, RatingData, item_words
from jmrec.systems.mmrec.writers.table import WRITERS, make_writer
from jmrec.systems.mmrec.writers.writer import Source, Writer
from jmrec.systems.stages import Stage
from jmrec.systems.work import Work

MEAN, NONE = "mean", "none"
"""What may be read in place of a writer's texts: the mean of the reviews' vectors; nothing."""
SAMPLES = 10
SHOWN = 300
"""Characters of a review in the report."""


class Descriptions:
    """The texts of one run.

    Args:
      work: The run; its group "describe": writers by "item" and "user", and one of "picture".
      data: Its rows.

    Raises:
      UserError: A writer is not known.
    """

    def __init__(self, work: Work, data: RatingData) -> None:
        self.work, self.data = work, data
        c = work.config.describe
        for by in GROUPS:
            for name in c[by]:
                choose(f"describe.{by}", name, tuple(WRITERS))
                if name in ("labels", "caption"):
                    raise UserError(f"describe.{by}: {name} describes pictures; use it as such.")
        choose("describe.picture", c.picture, (NONE, "labels", "caption"))

    @property
    def wanted(self) -> list[tuple[str, str]]:
        """What is described, and by which writer: ("item", "llm"), ("picture", "labels")."""
        c = self.work.config.describe
        found = [(by, name) for by in GROUPS for name in c[by] if name != NONE]
        return found + ([("picture", c.picture)] if c.picture != NONE else [])

    def stages(self) -> list[Stage]:
        """Return a stage for each kind of text, "describe/item-llm"."""
        return [self._stage(what, name) for what, name in self.wanted]

    def _stage(self, what: str, name: str) -> Stage:
        c = self.work.config
        own: dict[str, Any] = {"writer": name, "settings": c.describe.writers[name]}
        if what != "picture":
            own |= {"sizes": c.describe.sizes, "protocol": c.protocol, "seed": c.seed}

        def run(folder: Path) -> None:
            sources = self.sources(what)
            tracker = self.work.tracker.stage(stage_name(what, name))
            with tracker.progress(len(sources), f"{name} writes of each {what}") as bar:
                describe(self._writer(name), sources, folder / TEXTS, bar)

        # Not alone: the first process writes, and the others wait for it within.
        return Stage(stage_name(what, name), own, ("data",), run)

    def _writer(self, name: str) -> Writer:
        return make_writer(name, self.work.config.describe.writers[name])

    @cached_property
    def _words(self) -> list[str]:
        return item_words(self.data.items)

    def sources(self, what: str) -> list[Source]:
        """Return what the texts are made of: of each "item" or "user" cut, or each "picture"."""
        items, ratings = self.data.items, self.data.ratings
        if what == "picture":
            return [
                Source(f"picture {name}", items.titles[row], "", (), items.pictures[row])
                for row, name in enumerate(items.ids)
            ]
        cuts: Cuts = self.data.cuts[what]
        found: list[Source] = []
        seen: dict[str, int] = {}
        for group, rows in zip(cuts.group.tolist(), cuts.rows, strict=True):
            reviews = tuple(ratings.reviews[row] for row in rows)
            if what == "item":
                title, facts, key = items.titles[group], self._words[group], items.ids[group]
            else:
                title, facts, key = "", "", ratings.user_ids[group]
            name = f"{what} {key} after {len(rows)}"
            seen[name] = seen.get(name, 0) + 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
            found.append(Source(name, title, facts, reviews, b""))
        return found

    def texts(self, what: str, name: str) -> list[str]:
        """Return the texts of a finished stage, one a source.

        Raises:
          UserError: They are missing.
        """
        texts = read_texts(self.work.workdir / stage_name(what, name) / TEXTS)
        return [texts[source.key] for source in self.sources(what)]

    def samples(self) -> list[dict[str, Any]]:
        """Return some texts beside the newest reviews that they are made of, for the report."""
        found = []
        for what, name in self.wanted:
            sources, texts = self.sources(what), self.texts(what, name)
            some = [n for n, source in enumerate(sources) if source.reviews or source.picture]
            for n in some[:: max(1, len(some) // SAMPLES)][:SAMPLES]:
                source = sources[n]
                found.append({
                    "item": f"{source.title or source.key} ({name})",
                    "cut": len(source.reviews) if what != "picture" else None,
                    "sources": [text[:SHOWN] for text in source.reviews[-SAMPLES:]],
                    "summary": texts[n],
                    "flags": [] if what == "picture" else invented(texts[n], shown_to(source)),
                })  # fmt: skip
        return found

    def counts(self) -> list[dict[str, Any]]:
        """Return, of each writer of reviews, how many of its texts hold something invented.

        That is a number or a name that stands in no review of the cut and in no text of the item:
        a writer that reads only some of them may have invented more.
        """
        found = []
        for what, name in self.wanted:
            if what == "picture":
                continue
            sources, texts = self.sources(what), self.texts(what, name)
            found.append({"what": what, "writer": name, **count_invented(texts, sources)})
        return found


def stage_name(what: str, name: str) -> str:
    """Return the stage of a writer.

    Example:
      >>> stage_name("item", "llm")
      'describe/item-llm'
    """
    return f"describe/{what}-{name}"
