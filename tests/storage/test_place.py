"""A durable storage is used only where nobody else can have written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from suitkaise import sktree
from suitkaise.errors import StorageError
from suitkaise.storage.place import check_place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a storage in it."""
    place = tmp_path / "state"
    sktree.connect(place, durable=True).add("name", "value", path="")
    sktree.disconnect()
    return place


def all_of(place: Path) -> list[Path]:
    return [place, *(path for path in place.rglob("*"))]


def test_a_storage_of_this_user_is_used_again(place: Path) -> None:
    check_place(str(place))
    assert sktree.connect(place, durable=True).get("name", path="") == "value"
    sktree.disconnect()


def refused(place: Path, *texts: str) -> None:
    before = {path: path.lstat().st_mtime_ns for path in all_of(place) if not path.is_socket()}
    with pytest.raises(StorageError) as error:
        sktree.connect(place, durable=True)
    for text in texts:
        assert text in str(error.value)
    assert {path: path.lstat().st_mtime_ns for path in all_of(place) if not path.is_socket()} == before


@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_can_write_is_refused_and_the_error_tells_how_to_mend_it(place: Path, mode: int) -> None:
    for path in all_of(place):
        if not path.is_socket():
            was = path.stat().st_mode
            path.chmod(was | mode)
            refused(place, repr(str(path)), "can be written by others", f"chmod -R go-w {place}")
            path.chmod(was)
    check_place(str(place))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_refused(place: Path) -> None:
    for path in all_of(place):
        os.chown(path, 65534, 65534)
        refused(place, repr(str(path)), "belongs to user 65534", f"chown -R {os.geteuid()} {place}")
        os.chown(path, 0, 0)
    check_place(str(place))


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make, text", [(link, "is a link"), (pipe, "is no file of a storage")])
def test_no_link_is_followed_and_no_pipe_is_opened(
    place: Path, tmp_path: Path, make: Callable[[Path, Path], None], text: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for path in all_of(place)[1:]:
        if path.is_file():
            kept = tmp_path / "kept"
            path.rename(kept)
            make(path, precious)
            with pytest.raises(StorageError, match=text):
                sktree.connect(place, durable=True)
            assert precious.read_text() == "mine"
            path.unlink()
            kept.rename(path)
    check_place(str(place))


def test_other_files_in_the_directory_are_nobodys_business(place: Path) -> None:
    other = place / "notes.txt"
    other.touch()
    other.chmod(0o666)
    check_place(str(place))
