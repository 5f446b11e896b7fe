"""The private directory of a program: it is removed when no process holds it any more, and not earlier."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.platform.runtime_directory import (
    base_directory,
    hold,
    make_directory,
    remove_directory,
    remove_if_unused,
    remove_when_unused,
    sweep,
)


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory in which runtime directories are made during a test."""
    base = Path(f"/dev/shm/{os.getpid()}-test")
    base.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    yield base
    base.rmdir()


def test_a_new_directory_is_private_and_held(base: Path) -> None:
    directory, lock = make_directory()
    assert Path(directory).parent == base
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert not remove_if_unused(directory)
    remove_directory(directory, lock)
    assert not os.path.exists(directory)


def test_a_directory_that_another_process_holds_is_not_removed_by_a_sweep(base: Path) -> None:
    directory, lock = make_directory()
    other = hold(directory)
    os.close(lock)
    sweep()
    assert os.path.isdir(directory)
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
    directory, lock = make_directory()
    before = set(threading.enumerate())
    remove_when_unused(directory, patience=0.01)
    assert os.path.isdir(directory)
    os.close(lock)
    for remover in set(threading.enumerate()) - before:
        remover.join(10.0)
    assert not os.path.exists(directory)


def test_a_base_whose_path_is_too_long_for_sockets_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 70)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert base_directory() != str(long)
