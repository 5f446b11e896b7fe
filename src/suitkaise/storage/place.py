"""Where a storage lies, and whose a durable storage is.

The values of a durable one are decoded, which can run code: so only what this user alone writes is read. The private
directory of a program needs no such check: the program has just made it.
"""

from __future__ import annotations

import os
import stat

from suitkaise.errors import StorageError

__all__ = ["ELSEWHERE", "check_place", "directory_here", "note_elsewhere", "origin_of"]

ELSEWHERE = "elsewhere"
"""The file in a directory that only leads to a storage on another machine, with the path of its directory there."""

_OURS = ("store", "revision", "writer")
"""How the names of all files and folders of a storage begin."""


def check_place(directory: str) -> None:
    """Check that a directory, and what it holds of a storage, belong to this user, and that nobody else writes there.

    Raises:
        StorageError: they do not; the error tells how to mend it.
        OSError: that cannot be read.
    """
    _check(directory, directory, os.stat(directory))
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_OURS):
                _check_all(directory, entry)


def _check_all(directory: str, entry: os.DirEntry[str]) -> None:
    _check(directory, entry.path, entry.stat(follow_symlinks=False))
    if entry.is_dir(follow_symlinks=False):
        with os.scandir(entry.path) as entries:
            for below in entries:
                _check_all(directory, below)


def _check(directory: str, path: str, facts: os.stat_result) -> None:
    if stat.S_ISLNK(facts.st_mode):
        why, mend = "is a link, and a storage follows none", "put the file itself there, or remove the link"
    elif not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) or stat.S_ISSOCK(facts.st_mode)):
        why, mend = "is no file of a storage", "remove it"
    elif facts.st_uid != os.geteuid():
        why = f"belongs to user {facts.st_uid}, and this program runs as user {os.geteuid()}"
        mend = f"if you trust what is stored there: chown -R {os.geteuid()} {directory}"
    elif facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISSOCK(facts.st_mode):
        why = f"can be written by others (mode {stat.S_IMODE(facts.st_mode):o})"
        mend = f"if you trust what is stored there: chmod -R go-w {directory}"
    else:
        return
    raise StorageError(f"the storage at {directory!r} is not used: {path!r} {why}; {mend}", path=directory)


def origin_of(directory: str) -> str:
    """Return the directory on the storage's own machine to which this one leads, or this one."""
    try:
        with open(os.path.join(directory, ELSEWHERE), "rb") as file:
            return os.fsdecode(file.read())
    except OSError:
        return directory


def note_elsewhere(directory: str) -> None:
    """Record that in this process a storage on another machine is reached by this directory."""
    origin = origin_of(directory)
    if origin != directory:
        _here[origin] = directory


def directory_here(origin: str) -> str:
    """Return the directory by which this process reaches the storage that has this directory on its own machine."""
    return _here.get(origin, origin)


_here: dict[str, str] = {}
