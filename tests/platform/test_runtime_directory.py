"""The private directory of a program: it is removed when no process holds it any more, and not earlier."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suitkaise.errors import SuitkaiseError
from suitkaise.platform import runtime_directory
from suitkaise.platform.runtime_directory import (
    LOCK,
    MARK,
    RuntimeDirectory,
    base_directory,
    directories_in_use,
    hold,
    remove_if_unused,
    remove_when_unused,
    sweep,
    unused_directories,
)
from tests.support import descriptors_of, only_root, stranger


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory in which runtime directories are made during a test."""
    base = Path(f"/dev/shm/{os.getpid()}-test")
    base.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    yield base
    base.rmdir()


def test_a_new_directory_is_private_and_held(base: Path) -> None:
    home = RuntimeDirectory()
    assert Path(home.path).parent == base
    assert stat.S_IMODE(os.stat(home.path).st_mode) == 0o700
    assert not remove_if_unused(home.path)
    home.remove()
    assert not os.path.exists(home.path)


def test_a_directory_that_another_process_holds_is_not_removed_by_a_sweep(base: Path) -> None:
    home = RuntimeDirectory()
    other = hold(home.path)
    os.close(home.lock)
    sweep()
    assert os.path.isdir(home.path)
    os.close(other)
    sweep()
    assert os.listdir(base) == []


def test_a_sweep_leaves_directories_of_others_alone(base: Path) -> None:
    other = base / "suitkaise-open-to-all"
    other.mkdir(mode=0o755)
    (other / "lock").touch()
    sweep()
    assert other.is_dir()
    (other / "lock").unlink()
    other.rmdir()


def test_the_removal_gives_up_waiting_but_happens_when_the_last_holder_is_gone() -> None:
    home = RuntimeDirectory()
    before = set(threading.enumerate())
    remove_when_unused(home.path, patience=0.01)
    assert os.path.isdir(home.path)
    os.close(home.lock)
    for remover in set(threading.enumerate()) - before:
        remover.join(10.0)
    assert not os.path.exists(home.path)


def test_a_directory_whose_removal_was_cut_short_is_removed_by_a_sweep(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    names = ("board", "hub.sock", *(f"stack-{number}" for number in range(20)))
    for place in range(len(names) + 1):  # of the file before whose removal the process ends
        directory = RuntimeDirectory()
        path = Path(directory.path)
        for name in names:
            (path / name).touch()
        unlink, removed = os.unlink, 0

        def cut_short(name: str, unlink: Callable[[str], None] = unlink, place: int = place) -> None:
            nonlocal removed
            if removed == place:
                raise Killed
            removed += 1
            unlink(name)

        def lock_first(folder: str, topdown: bool) -> Iterator[tuple[str, list[str], list[str]]]:
            """A file system lists the files of a folder in any order."""
            yield folder, [], sorted(os.listdir(folder), key=LOCK.__ne__)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(os, "walk", lock_first)
            patched.setattr(os, "unlink", cut_short)
            directory.remove()
        assert path.exists()
        sweep()
        assert not path.exists()


def test_a_sweep_leaves_a_private_directory_of_the_user_alone_that_has_such_a_name(base: Path) -> None:
    mine = base / "suitkaise-notes"
    mine.mkdir(mode=0o700)
    (mine / LOCK).write_text("my bicycle\n")
    sweep()
    assert (mine / LOCK).read_text() == "my bicycle\n"
    (mine / LOCK).unlink()
    mine.rmdir()


def test_a_sweep_follows_no_link_and_waits_for_no_pipe(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(MARK)
    for name, make in (("suitkaise-link", lambda at: at.symlink_to(target)), ("suitkaise-pipe", os.mkfifo)):
        (base / name).mkdir(mode=0o700)
        make(base / name / LOCK)
    sweep()
    for name in ("suitkaise-link", "suitkaise-pipe"):
        (base / name / LOCK).unlink()
        (base / name).rmdir()


def test_a_lock_that_is_a_link_is_not_followed(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    home = base / "suitkaise-x"
    home.mkdir(mode=0o700)
    (home / LOCK).symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        hold(str(home))
    assert target.read_text() == "mine"
    (home / LOCK).unlink()
    home.rmdir()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1770])
def test_a_base_in_which_others_could_replace_a_directory_is_passed_over(base: Path, mode: int) -> None:
    base.chmod(mode)
    fits = mode & stat.S_ISVTX and base.stat().st_uid == 0
    assert (base_directory() == str(base)) == bool(fits)


def test_a_base_that_another_user_owns_is_passed_over(base: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    os.chown(base, 65534, 65534)
    assert base_directory() != str(base)


@pytest.mark.parametrize("place", ["relative", "/nonexistent", "/etc/hostname", ""])
def test_a_place_that_is_no_directory_of_ours_is_passed_over(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", place)
    assert base_directory() == "/dev/shm"


@only_root
@pytest.mark.parametrize("mode", [0o700, 0o744], ids=["closed", "only its names"])
def test_a_place_into_which_this_user_cannot_look_holds_no_directory_of_this_users(base: Path, mode: int) -> None:
    home = RuntimeDirectory()
    base.chmod(mode)

    def look(writes: int) -> None:
        os.write(writes, repr(directories_in_use() + unused_directories()).encode())

    with stranger(look) as reads:
        found = os.read(reads, 10_000).decode()
    home.remove()
    assert found.startswith("[")
    assert home.path not in found


@only_root
def test_a_place_whose_names_cannot_be_read_serves_all_the_same(base: Path) -> None:
    def make(writes: int) -> None:
        folder = Path(f"{base}-stranger")
        folder.mkdir(mode=0o300)
        try:
            os.environ["XDG_RUNTIME_DIR"] = str(folder)
            sweep()
            home = RuntimeDirectory()
            home.remove()
            os.write(writes, os.path.dirname(home.path).encode())
        finally:
            folder.rmdir()

    with stranger(make) as reads:
        assert os.read(reads, 10_000).decode() == f"{base}-stranger"


def test_without_any_place_the_error_tells_what_was_wrong_with_each(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.chmod(0o777)
    monkeypatch.setattr(runtime_directory, "SHARED_MEMORY", "relative")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/nonexistent")
    with pytest.raises(SuitkaiseError) as refused:
        base_directory()
    for part in (f"{base} can be written by other users", "relative is a relative path", "No such file", "0700"):
        assert part in str(refused.value)


def test_a_directory_that_was_removed_is_noticed_and_made_anew(base: Path) -> None:
    home = RuntimeDirectory()
    assert home.is_there()
    shutil.rmtree(home.path)
    assert not home.is_there()
    home.make_again()
    assert home.is_there()
    assert stat.S_IMODE(os.stat(home.path).st_mode) == 0o700
    assert not remove_if_unused(home.path), "it is held"
    home.remove()


def test_a_directory_that_could_not_be_made_anew_is_made_at_the_next_attempt(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = RuntimeDirectory()
    shutil.rmtree(home.path)

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no room is left")

    before = descriptors_of(os.getpid())
    for where in ("pwrite", "fill"):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="no room"):
            if where == "pwrite":
                patched.setattr(os, "pwrite", fail)
            home.make_again(fail)
        assert os.listdir(base) == []
    assert descriptors_of(os.getpid()) == before
    home.make_again()
    assert home.is_there()
    home.remove()


def test_a_directory_that_another_one_has_replaced_is_neither_used_nor_removed(base: Path) -> None:
    home = RuntimeDirectory()
    shutil.rmtree(home.path)
    other = Path(home.path)
    other.mkdir()
    assert not home.is_there()
    with pytest.raises(FileExistsError):
        home.make_again()
    home.remove()
    other.rmdir()
