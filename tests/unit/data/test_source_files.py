"""A folder that has changed is noticed by its contents, and only by them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jmrec.data.source_files import source_changes, source_checksum, source_files


@pytest.fixture
def shop(tmp_path: Path, make_shop: Callable[..., Path]) -> Path:
    return make_shop(tmp_path / "shop")


def test_every_file_that_is_read_counts_and_no_other(shop: Path) -> None:
    before = source_files(shop)
    assert {"items.csv", "interactions.csv", "dataset.toml", "images/0.png"} <= before.keys()
    (shop / "notes.txt").write_text("mine")
    assert source_files(shop) == before
    for name, words in [
        ("interactions.csv", "interactions.csv has"),
        ("dataset.toml", "dataset.toml has"),
        ("images/0.png", "images/0.png has"),
    ]:
        old = (shop / name).read_bytes()
        (shop / name).write_bytes(old + b"\n")
        now = source_files(shop, None, before)
        assert source_checksum(now) != source_checksum(before)
        assert source_changes(before, now).startswith(words)
        (shop / name).write_bytes(old)
    assert source_checksum(source_files(shop)) == source_checksum(before)


def test_a_touched_file_is_the_same_and_an_edited_one_of_the_same_size_is_not(shop: Path) -> None:
    before = source_files(shop)
    os.utime(shop / "items.csv", ns=(1, 1))
    now = source_files(shop, None, before)
    assert source_checksum(now) == source_checksum(before)
    assert source_changes(before, now) == ""
    toml = (shop / "dataset.toml").read_text()
    (shop / "dataset.toml").write_text(toml.replace("exclude_seen = true", "exclude_seen =true "))
    now = source_files(shop, None, before)
    assert source_changes(before, now) == "dataset.toml was edited"


def test_new_and_lost_pictures_are_named(shop: Path) -> None:
    before = source_files(shop)
    (shop / "images/0.png").rename(shop / "images/new.png")
    said = source_changes(before, source_files(shop, None, before))
    assert said == "images/0.png is gone; images/new.png is new"


def test_a_link_that_leaves_the_folder_is_not_followed(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/secret.txt").write_text("mine")
    (shop / "photos").symlink_to(tmp_path / "mine")
    path = shop / "dataset.toml"
    path.write_text(path.read_text().replace("[items]", '[items]\npictures = "photos"'))
    assert set(source_files(shop)) == {"dataset.toml", "items.csv", "interactions.csv"}
    (shop / "photos").unlink()
    (shop / "images").rename(shop / "photos")
    assert "photos/0.png" in source_files(shop)
