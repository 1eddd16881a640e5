"""What jobs leave for the next one on the same files."""

import os
from pathlib import Path

import pytest

from worker.shelf import Shelf, shelf_key


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "root", 100)


def used(shelf: Shelf, key: str, place: Path, size: int) -> None:
    shelf.lend(key, place)
    (place / "found").write_bytes(b"x" * size)
    shelf.take_back(key, place)


def test_what_was_taken_back_is_lent_again(shelf: Shelf, tmp_path: Path) -> None:
    used(shelf, "a", tmp_path / "first", 10)
    shelf.lend("a", tmp_path / "second")
    assert (tmp_path / "second" / "found").read_bytes() == b"x" * 10


def test_no_two_jobs_hold_the_same_folder(shelf: Shelf, tmp_path: Path) -> None:
    used(shelf, "a", tmp_path / "first", 10)
    shelf.lend("a", tmp_path / "second")
    shelf.lend("a", tmp_path / "third")
    assert not any((tmp_path / "third").iterdir())


def test_the_oldest_goes_where_room_is_short(shelf: Shelf, tmp_path: Path) -> None:
    for number, key in enumerate("abc"):
        used(shelf, key, tmp_path / key, 40)
        stamp = 1_000_000 + number
        os.utime(shelf.root / key, (stamp, stamp))
    assert {folder.name for folder in shelf.root.iterdir()} == {"b", "c"}


def test_what_exceeds_all_room_is_not_kept(shelf: Shelf, tmp_path: Path) -> None:
    used(shelf, "a", tmp_path / "first", 101)
    assert not (shelf.root / "a").exists()


def test_a_link_to_another_place_is_kept_as_a_link(shelf: Shelf, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"y" * 1000)
    place = tmp_path / "job"
    shelf.lend("a", place)
    (place / "link").symlink_to(secret)
    shelf.take_back("a", place)
    assert (shelf.root / "a" / "link").is_symlink()
    assert secret.exists()


def test_files_of_another_owner_are_never_the_same() -> None:
    assert shelf_key("one", ["f00"]) != shelf_key("two", ["f00"])
    assert shelf_key("one", ["f00", ""]) != shelf_key("one", ["", "f00"])
