"""The part of an exported rule that counts on: sessions of training, and of what came since.

It lies beside the artefact, in ``updatable/``, and answering does not read it:

=================================== ==============================================================
updatable/facts.json                names of events, texts of the items, bounds
updatable/numbers.safetensors       columns of numbers of the items, where there are some
updatable/flat/*.safetensors        the sessions of training, validation and test
updatable/reading.json, batches/    what was remembered, see `jmrec.data.remembered`
=================================== ==============================================================

It holds ids of sessions and users: keep it as you keep the data itself.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from jmrec.data import flat
from jmrec.data.remembered import Remembered, read_remembered, write_remembered
from jmrec.data.schema import SPLITS, Dataset, Items
from jmrec.errors import UserError
from jmrec.evaluation.rankers.content import texts_of
from jmrec.files import write_json
from jmrec.serving.folder import read_arrays

UPDATABLE = "updatable"
"""The folder inside an artefact."""
_FACTS, _NUMBERS = "facts.json", "numbers.safetensors"


@dataclass(frozen=True)
class Updatable:
    """What counting of new sessions needs.

    Attributes:
      dataset: Sessions of all splits; the catalogue without the items of the batches: ids, texts
        and numbers.
      remembered: What came since.
      ease_items: Of how many items EASE holds weights at most.
    """

    dataset: Dataset
    remembered: Remembered
    ease_items: int

    def write(self, folder: Path) -> None:
        """Write it into a new folder."""
        folder.mkdir()
        data, items = self.dataset, self.dataset.items
        facts = {
            "ids": items.ids,
            "texts": texts_of(items),
            "event_names": data.event_names,
            "has_time": data.has_time,
            "exclude_seen": data.exclude_seen,
            "ease_items": self.ease_items,
        }
        write_json(folder / _FACTS, facts)
        if items.number:
            numbers = {name: np.ascontiguousarray(each) for name, each in items.number.items()}
            save_file(numbers, folder / _NUMBERS)
        flat.write(replace(data, ratings=None, items=replace(items, value=None)), folder)
        write_remembered(self.remembered, folder)


def read_updatable(folder: Path) -> Updatable:
    """Read what an artefact has in ``updatable/``; its checksums were held to it before.

    Args:
      folder: The artefact's.

    Raises:
      UserError: There is none, or it is damaged.
    """
    own = folder / UPDATABLE
    if not own.is_dir():
        raise UserError(
            f"{folder} can not count new sessions; make it again with jmrec export --updatable."
        )
    try:
        facts = json.loads((own / _FACTS).read_bytes())
        ids, texts = facts["ids"], facts["texts"]
        numbers = read_arrays(own / _NUMBERS) if (own / _NUMBERS).is_file() else {}
        dataset = Dataset(
            name="served",
            items=Items(ids, ids, {"title": texts}, [b""] * len(ids), number=numbers),
            splits={split: flat.read_sessions(own, split) for split in SPLITS},
            exclude_seen=facts["exclude_seen"],
            fingerprint="",
            has_time=facts["has_time"],
            event_names=facts["event_names"],
        )
        remembered = read_remembered(own)
        assert remembered is not None
        return Updatable(dataset, remembered, int(facts["ease_items"]))
    except (ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        why = str(error) or type(error).__name__
        raise UserError(
            f"{own} is damaged ({why}); make it again with jmrec export --updatable."
        ) from None
