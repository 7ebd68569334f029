"""A small folder with reviews, and a run of "mmrec" on it that takes seconds."""

import csv
from pathlib import Path

import numpy as np

from jmrec.config import ConfigDict, load_config

EXPERIMENT = Path(__file__).resolve().parents[4] / "experiments" / "mmrec.py"
DAY = 86_400
WORDS = ("dull", "noisy", "bright", "warm", "cheap", "sturdy", "plain", "lovely")


def write_folder(
    folder: Path, *, items: int = 12, users: int = 15, rows: int = 400, seed: int = 0
) -> Path:
    """Write a catalogue whose rows are disliked where item and user do not fit."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    kind, taste = random.integers(0, 4, items), random.integers(0, 4, users)
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title", "description", "price"])
        for item in range(items):
            text = f"A {WORDS[kind[item]]} thing, number {item}."
            writer.writerow([f"i{item}", f"Thing {item}", text, f"{random.uniform(1, 9):.2f}"])
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp", "review", "disliked"])
        for row in range(rows):
            item, user = int(random.integers(items)), int(random.integers(users))
            bad = random.random() < (0.6 if kind[item] == taste[user] else 0.1)
            said = " ".join(random.choice(WORDS, 5))
            review = f"I call it {said}." if random.random() < 0.9 else ""
            time = row * DAY // 4
            writer.writerow([f"u{user}", f"i{item}", time, review, int(bad)])
    (folder / "dataset.toml").write_text(
        '[dataset]\nname = "small"\n[items]\nnumber_columns = ["price"]\n'
        '[interactions]\nlabel = "disliked"\nlabel_means = "avoid"\n',
        encoding="utf-8",
    )
    return folder


def small_config(folder: Path, arg: str = "", **changes: object) -> ConfigDict:
    """Return an experiment of a few updates: counted words, no pictures."""
    config = load_config(f"{EXPERIMENT}:data=folder,size=tiny{',' + arg if arg else ''}")
    config.data.dir = str(folder)
    config.read.update(picture="none", width=8)
    config.align.width = 8
    config.rank.update(width=4, bottom=(8,), top=(8,), past=3)
    config.align.train.update(steps=4, batch_size=8, eval_every=4, save_every=4)
    config.rank.train.update(steps=6, batch_size=32, eval_every=3, save_every=3)
    config.describe.sizes = tuple(range(2, 60, 2))
    config.evaluate.rivals = False
    for name, value in changes.items():
        config[name] = value
    return config
