"""The descriptions that a folder of Amazon Reviews 2023 gets, beside its tables."""

FIVE_CORE = "5core_"
"""How those of the 5-core begin."""
TIMESTAMPS = (1_628_643_414.042, 1_658_002_729.837)
"""Unix seconds at which validation and test of the release's own split by time begin."""

_SOURCE = """\
# CATEGORY of Amazon Reviews 2023 (Hou and others, https://amazon-reviews-2023.github.io). Ask the
# authors, and the right holders of texts and pictures, before you give any of it away.
# Cautions: an event is a review, written days after it was bought; of one user and item the
# earliest alone is here. Prices, texts and categories are of 2023, whenever the review was written.
# average_rating, rating_number and bought_together tell the future, and so does helpful_vote of
# interactions, which nothing reads.
"""

_ITEMS = """
[items]
file = "FILE"
id = "parent_asin"
title = "title"
description = "description"
text_columns = ["features", "details", "categories"]
category_columns = ["main_category", "store"]
number_columns = ["price"]
never_use = ["average_rating", "rating_number", "bought_together"]
"""

_EVENTS = """
[interactions]
file = "FILE"
item = "parent_asin"
user = "user_id"
time = "timestamp"
rating = "rating"
"""


def _description(settings: str, more: str = "", suffix: str = "") -> str:
    items = _ITEMS.replace("FILE", f"items{suffix}.parquet")
    events = _EVENTS.replace("FILE", f"interactions{suffix}.parquet")
    head = f'\n[dataset]\nname = "CATEGORY"\nexclude_seen = true\ntime_format = "ms"\n{settings}'
    return f"{_SOURCE}{head}{items}{events}{more}"


DESCRIPTIONS = {
    "dataset.toml": _description(
        "session_gap_minutes = 1440  # a day: people write several reviews at one sitting\n",
        'review = ""  # "review" reads what was written, for jmrec data check to look at\n',
    ),
    "reviews.toml": _description(
        "session_gap_minutes = 1440\n",
        'review = "review"\nlabel = "rating <= 2"\nlabel_means = "avoid"\n',
    ),
    "5core_last_out.toml": _description(
        'split = "last_out"  # 5core/last_out of the release: training knows the future\n',
        'review = ""\n',
        "_5core",
    ),
    "5core_timestamp.toml": _description(
        'split = "event_time"  # 5core/timestamp of the release\n'
        f"validation_from = {TIMESTAMPS[0]}\ntest_from = {TIMESTAMPS[1]}\n",
        'review = ""\n',
        "_5core",
    ),
}
"""File name -> text, CATEGORY in place of the category's name."""
