"""One number for all that a prepared data set holds."""

import hashlib
import json
from typing import Any

import numpy as np

from jmrec.data.schema import Dataset


def fingerprint(dataset: Dataset, settings: dict[str, Any]) -> str:
    """Hash everything in the data set and some settings, field by field, each with its length."""
    digest = hashlib.sha256()

    def add(name: str, data: bytes) -> None:
        digest.update(f"{name}:{len(data)}:".encode())
        digest.update(data)

    def add_json(name: str, value: Any) -> None:
        add(name, json.dumps(value, ensure_ascii=True).encode())

    items = dataset.items
    flags = [dataset.name, dataset.exclude_seen, dataset.has_time, dataset.has_users]
    add_json("settings", [settings, flags])
    add_json("ids", items.ids)
    add_json("text", list(items.text.items()))
    add_json("categories", list(items.category_names.items()))
    for name, column in [*items.category.items(), *items.number.items()]:
        add(name, column.tobytes())
    if items.has_windows:
        add("available_from", items.available_from.tobytes())
        add("available_until", items.available_until.tobytes())
    for picture in items.pictures:
        add("picture", picture)
    for name, part in dataset.splits.items():
        add_json(name, part.ids)
        for key in ("users", "offsets", "items", "times", "events", "ratings"):
            add(key, np.ascontiguousarray(getattr(part, key)).tobytes())
        if not part.targets.all():
            add("targets", part.targets.tobytes())
    # Only where there are some, so that data prepared before there were ratings stays the same.
    if (ratings := dataset.ratings) is not None:
        add_json("label", [ratings.label, ratings.label_means])
        add_json("ratings", [ratings.user_ids, ratings.reviews])
        for key in ("items", "users", "times", "labels", "ratings"):
            add(key, np.ascontiguousarray(getattr(ratings, key)).tobytes())
    if (value := items.value) is not None:
        add_json("value", [value.column, value.share, value.gain])
        add("sold", value.sold.tobytes())
        add("gained", value.gained.tobytes())
    return digest.hexdigest()
