"""Public files without a row of column names: what their columns are, by the name of the file."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

_MOVIELENS_GENRES = (
    "unknown Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir "
    "Horror Musical Mystery Romance Sci-Fi Thriller War Western"
)
_RATINGS = "user_id item_id rating timestamp"
_LAYOUTS = {
    "ratings.dat": ("MovieLens", _RATINGS),
    "movies.dat": ("MovieLens", "item_id title genres"),
    "users.dat": ("MovieLens", "user_id gender age occupation zip_code"),
    "tags.dat": ("MovieLens", "user_id item_id tag timestamp"),
    "u.data": ("MovieLens 100K", _RATINGS),
    "u.item": (
        "MovieLens 100K",
        f"item_id title release_date video_release_date imdb_url {_MOVIELENS_GENRES}",
    ),
    "u.user": ("MovieLens 100K", "user_id age gender occupation zip_code"),
    "yoochoose-clicks.dat": ("Yoochoose", "session_id timestamp item_id category"),
    "yoochoose-buys.dat": ("Yoochoose", "session_id timestamp item_id price quantity"),
    "loc-*_totalcheckins.txt": ("Gowalla", "user_id timestamp latitude longitude item_id"),
    "userid-timestamp-artid-artname-traid-traname.tsv": (
        "Last.fm 1K",
        "user_id timestamp artist_id artist item_id title",
    ),
    "ratings_*.csv": ("the Amazon reviews of 2014", _RATINGS),
    "userbehavior*.csv": ("Taobao", "user_id item_id category_id event timestamp"),
    "dataset_tsmc2014_*.txt": (
        "Foursquare",
        "user_id item_id category_id category latitude longitude minutes_from_utc timestamp",
    ),
    "news.tsv": (
        "MIND",
        "item_id category subcategory title abstract url title_entities abstract_entities",
    ),
    "behaviors.tsv": ("MIND", "impression_id user_id timestamp history impressions"),
    "usersha1-artmbid-artname-plays.tsv": ("Last.fm 360K", "user_id item_id artist plays"),
    "usersha1-profile.tsv": ("Last.fm 360K", "user_id gender age country signup"),
    "train_triplets.txt": ("the Million Song Dataset", "user_id item_id plays"),
    "ratings_data.txt": ("Epinions", "user_id item_id rating"),
    "trust_data.txt": ("Epinions", "user_id trusted_user_id trust"),
    "movie-ratings.txt": ("Ciao", "user_id item_id category_id review_id rating timestamp"),
    "trusts.txt": ("Ciao", "user_id trusted_user_id trust"),
    "steam-200k.csv": ("Steam", "user_id item_id event hours unused"),
    "microlens-*_title_en.csv": ("MicroLens", "item_id title"),
    "microlens-*_likes_and_views.txt": ("MicroLens", "item_id likes views"),
    "movie_titles.csv": ("Netflix", "item_id year title"),
}
"""File name in small letters, * for any characters -> (whose it is, its columns in order)."""


_REMARKS = {
    "behaviors.tsv": (
        "holds what was shown (ID-0) and clicked (ID-1) in its last column, which is not read: to "
        "predict those clicks, write a row for each with the user, the time and the item"
    ),
    "combined_data_?.txt": (
        "has the film of its rows in a line of its own ('1:'): write it into each row that "
        "follows, as item_id,user_id,rating,timestamp"
    ),
}
"""File name as above -> what of it can not be read as it is, and the remedy."""


def remark_of(file: str) -> str:
    """Return a sentence about a file of which something can not be read as it is, or "".

    Example:
      >>> remark_of("clicks.csv")
      ''
    """
    found = [says for pattern, says in _REMARKS.items() if fnmatchcase(_plain(file), pattern)]
    return f"{file} {found[0]}." if found else ""


def _plain(file: str) -> str:
    return file.lower().removesuffix(".gz")


def layout_of(file: str, width: int) -> tuple[str, list[str]]:
    """Return whose file this is and the names of its columns; ("", []) where that is not known.

    Args:
      file: The file's name; packed or not.
      width: How many cells its first row has.

    Example:
      >>> layout_of("ratings.dat", 4)
      ('MovieLens', ['user_id', 'item_id', 'rating', 'timestamp'])
      >>> layout_of("ratings.dat", 3), layout_of("clicks.csv", 3)
      (('', []), ('', []))
    """
    name = _plain(file)
    for pattern, (owner, columns) in _LAYOUTS.items():
        if fnmatchcase(name, pattern) and len(columns.split()) == width:
            return owner, columns.split()
    return "", []


def numbered(width: int) -> list[str]:
    """Return names for columns that nothing is known of.

    Example:
      >>> numbered(2)
      ['column_1', 'column_2']
    """
    return [f"column_{n}" for n in range(1, width + 1)]


def says_names(columns: Sequence[str], file: str) -> str:
    """Return why a description names these columns, for the line above them."""
    owner, _ = layout_of(file, len(columns))
    return f"No row names the columns; these are what {owner} says that {file} holds."
