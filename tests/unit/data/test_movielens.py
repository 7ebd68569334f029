"""MovieLens as GroupLens packs it; where no tests can have it, a folder of its form is drawn."""

import csv
from pathlib import Path

import numpy as np

from jmrec.data.folder import read_folder
from jmrec.data.prepared import build

TOML = Path(__file__).resolve().parents[3] / "experiments/data/movielens.toml"


def test_the_released_files_are_a_catalogue_folder(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    films = [(n, f"Film {n}, The (19{n})", "Action|Drama" if n % 2 else "(no genres listed)")
             for n in range(10, 40)]  # fmt: skip
    ratings = [
        (user, film, draw.integers(1, 11) / 2, 1_000_000_000 + int(draw.integers(10**8)))
        for user in range(1, 30)
        for film in draw.choice(range(10, 40), 8, replace=False)
    ]
    for name, head, rows in (
        ("movies", "movieId,title,genres", films),
        ("ratings", "userId,movieId,rating,timestamp", ratings),
    ):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\r\n").writerows([head.split(","), *rows])
    (tmp_path / "links.csv").write_text("movieId,imdbId,tmdbId\r\n10,1,2\r\n")
    raw = read_folder(tmp_path, TOML)
    assert raw.warnings == []
    assert raw.items.text["genres"][:2] == ["", "Action, Drama"]
    assert raw.items.titles == [title for _, title, _ in films]
    cut = np.sort([time for *_, time in ratings])[int(round(0.9 * len(ratings), 6))]
    test = build(raw).splits["test"]
    targets = sorted(
        (int(user), int(raw.items.ids[item]))
        for user, items, asked in zip(
            test.ids, test, np.split(test.targets, test.offsets[1:-1]), strict=True
        )
        for item in items[asked]
    )
    assert targets == sorted((u, f) for u, f, _, time in ratings if time >= cut)
