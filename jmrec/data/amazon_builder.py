"""Amazon Reviews 2023 as a data set of TFDS, for programs that know nothing of jmrec."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jmrec.data.amazon import BASE, CATEGORIES, make_folder
from jmrec.data.amazon_tomls import FIVE_CORE
from jmrec.data.downloads import Web
from jmrec.data.folder import read_folder
from jmrec.data.prepared import build
from jmrec.data.records import (
    ITEMS,
    RATINGS,
    SESSIONS,
    VERSION,
    JmrecData,
    LocalInfo,
    features,
)
from jmrec.errors import UserError

KINDS = {
    "sessions": ("dataset.toml", SESSIONS),
    "5core_last_out": ("5core_last_out.toml", SESSIONS),
    "5core_timestamp": ("5core_timestamp.toml", SESSIONS),
    "reviews": ("reviews.toml", RATINGS),
    "items": ("dataset.toml", ITEMS),
    "5core_items": ("5core_last_out.toml", ITEMS),
}
"""What a config begins with -> the folder's description, and what of it is written. Rows of items
are those of "items", in the 5-core those of "5core_items"."""


class AmazonReviews2023(JmrecData):
    """One category in one of several forms, such as "5core_timestamp_All_Beauty".

    A config is one of `KINDS` and a category; sessions have the splits "train", "validation" and
    "test". ``download_and_prepare`` downloads what ``data_dir/amazon/CATEGORY`` lacks (gigabytes
    for some; `jmrec data amazon` tells how many before) and makes a catalogue folder there, which
    the forms of a category share.

    Args:
      config: Its name.
      data_dir: The folder of TFDS; None is its usual one.
      web: Where the release is; None is `jmrec.data.amazon.BASE`.

    Raises:
      UserError: There is no such config.

    Example:
      >>> "5core_last_out_Video_Games" in AmazonReviews2023.builder_configs
      True
    """

    name = "amazon_reviews_2023"
    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [  # noqa: RUF012  # what TFDS reads
        tfds.core.BuilderConfig(name=f"{kind}_{category}", version=VERSION, description=kind)
        for kind in KINDS
        for category in CATEGORIES
    ]

    def __init__(
        self, config: str, data_dir: str | Path | None = None, web: Web | None = None, **more: Any
    ) -> None:
        config = str(getattr(config, "name", config))
        kind = next((each for each in KINDS if config.removeprefix(f"{each}_") in CATEGORIES), "")
        if not kind:
            raise UserError(
                f"{config[:80]!r} is no config of {self.name}; write one of {', '.join(KINDS)}, "
                "then _ and a category."
            )
        self._web = web or Web(BASE)
        self._category = config.removeprefix(f"{kind}_")
        self._toml, self._kind = KINDS[kind]
        self._some_targets = kind.startswith(FIVE_CORE)
        more["file_format"] = "array_record"  # the default needs TensorFlow
        tfds.core.GeneratorBasedBuilder.__init__(self, config=config, data_dir=data_dir, **more)

    def _info(self) -> LocalInfo:
        return LocalInfo(
            builder=self,
            description="Amazon Reviews 2023, prepared by jmrec.",
            homepage="https://amazon-reviews-2023.github.io",
            features=features(self._kind, False, self._some_targets),
            disable_shuffling=True,
        )

    @property
    def _chosen(self) -> bool:
        return self._some_targets

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = Path(self._data_dir_root) / "amazon" / self._category
        make_folder(folder, self._category, self._web)
        raw = read_folder(folder, folder / self._toml)
        self._dataset = build(raw, sessions=self._kind != RATINGS)
        return super()._split_generators(dl_manager)
