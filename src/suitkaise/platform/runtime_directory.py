"""The private directory of a program: where it is made, which processes hold it, and when it is removed.

Every process that uses the directory holds a shared lock on a file in it. The directory may be removed when an
exclusive lock can be had: then no process uses it any more, however they all have ended.

Nobody else may put another directory in its place. So it is made only where no other user can rename it, and a
directory that was removed nevertheless (by a cleaner of temporary files) is noticed and made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from suitkaise.errors import SuitkaiseError
from suitkaise.platform.threads import OwnThread

__all__ = [
    "BOARD",
    "HUB_SOCKET",
    "SHARED_MEMORY",
    "STRAGGLERS",
    "RuntimeDirectory",
    "base_directory",
    "directories_in_use",
    "hold",
    "is_used",
    "profile_socket",
    "remove_if_unused",
    "remove_when_unused",
    "stack_file",
    "sweep",
    "tail_file",
    "unused_directories",
]

PREFIX = "suitkaise-"

LOCK = "lock"
"""The file in the directory on which every process that uses the directory holds a shared lock."""

MARK = b"runtime directory of suitkaise\n"
"""The content of that file, by which a sweep knows our directories."""

_NO_LINK = os.O_CLOEXEC | os.O_NOFOLLOW

SHARED_MEMORY = "/dev/shm"
"""The second place where directories are made."""

HUB_SOCKET = "hub.sock"
"""The socket in the directory on which the hub serves the requests of workers."""

BOARD = "board"
"""The file in the directory with the status board."""

STRAGGLERS = 1.0
"""Seconds for which the last process of a program waits for others to release its directory."""


def base_directory() -> str:
    """Return where runtime directories are made: `$XDG_RUNTIME_DIR`, else `/dev/shm`, else the temporary directory.

    A place is passed over if the path is relative, if this user cannot write there, or if another user could replace
    what lies there: it must belong to this user with no write permission for others, or to root and be sticky.

    Raises:
        SuitkaiseError: all of them are passed over.
    """
    refused = []
    for place in filter(None, _places()):
        why = _unfit(place)
        if not why:
            return place
        refused.append(f"{place} {why}")
    raise SuitkaiseError(
        f"there is no place for the private directory of this program: {'; '.join(refused)}. Set XDG_RUNTIME_DIR to a "
        "directory of your own with the mode 0700"
    )


def _places() -> Iterator[str | None]:
    yield os.environ.get("XDG_RUNTIME_DIR")
    yield SHARED_MEMORY
    import tempfile  # 2 ms, for a machine without the others

    yield tempfile.gettempdir()


def _unfit(place: str) -> str:
    """Return why runtime directories cannot be made at this place; nothing if they can."""
    if not os.path.isabs(place):
        return "is a relative path"
    try:
        facts = os.stat(place)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if not stat.S_ISDIR(facts.st_mode):
        return "is no directory"
    if not (facts.st_uid == 0 and facts.st_mode & stat.S_ISVTX):
        if facts.st_uid != os.geteuid():
            return f"belongs to user {facts.st_uid}, who could replace what lies there"
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "can be written by other users, who could replace what lies there"
    return "" if os.access(place, os.W_OK | os.X_OK, effective_ids=True) else "cannot be written"


class RuntimeDirectory:
    """The private directory of this program; making it makes the directory.

    Attributes:
        path: its absolute path.
        lock: the descriptor that holds it.
    """

    def __init__(self) -> None:
        # It gets its final name only when it is held, so that no `sweep` of another program removes it in between.
        hidden = os.path.join(base_directory(), f".{PREFIX}{os.getpid()}-{os.urandom(8).hex()}")
        os.mkdir(hidden, 0o700)
        folder, name = os.path.split(hidden)
        self.path: str = os.path.join(folder, name[1:])
        with contextlib.ExitStack() as made:
            made.callback(_remove_tree, hidden)
            self.lock: int = hold(hidden)
            made.callback(os.close, self.lock)
            self._identity = _identity(hidden)
            os.rename(hidden, self.path)
            made.pop_all()

    def is_there(self) -> bool:
        """Return whether the directory lies at its path still."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    def make_again(self, fill: Callable[[], object] = lambda: None) -> None:
        """Make the directory anew at the same path, after it was removed, and `fill` it.

        Raises:
            OSError: that is not possible; `FileExistsError` if there is another one now. What was made is removed.
        """
        os.mkdir(self.path, 0o700)
        with contextlib.ExitStack() as made:
            made.callback(_remove_tree, self.path)
            lock = hold(self.path)
            made.callback(os.close, lock)
            identity = _identity(self.path)
            fill()
            made.pop_all()
        os.close(self.lock)
        self.lock, self._identity = lock, identity

    def remove(self) -> None:
        """Remove the directory, whatever uses it."""
        there = self.is_there()
        os.close(self.lock)
        if there and not remove_if_unused(self.path):
            _remove_tree(self.path)


def _identity(directory: str) -> tuple[int, int]:
    facts = os.stat(directory, follow_symlinks=False)
    return facts.st_dev, facts.st_ino


def tail_file(directory: str, serial: int) -> str:
    """Return the path of the file with the last output of the incarnation that has this serial number."""
    return os.path.join(directory, f"tail-{serial}")


def stack_file(directory: str, pid: int) -> str:
    """Return the path of the file to which a hung process writes its stack."""
    return os.path.join(directory, f"stack-{pid}")


def profile_socket(directory: str, pid: int) -> str:
    """Return the path of the socket at which an observer waits for a profile of a process."""
    return os.path.join(directory, f"profile-{pid}")


def sweep() -> None:
    """Remove the directories of programs that were killed."""
    for directory in _directories(base_directory()):
        remove_if_unused(directory)


def directories_in_use() -> list[str]:
    """Return the directories of the programs of this user that run, wherever they are made."""
    return [directory for directory in _all_directories() if is_used(directory)]


def unused_directories() -> list[str]:
    """Return the directories that programs of this user have left behind when they were killed."""
    return [directory for directory in _all_directories() if not is_used(directory)]


def _all_directories() -> list[str]:
    places = dict.fromkeys(filter(None, _places()))
    return [directory for place in places for directory in _directories(place)]


def is_used(directory: str) -> bool:
    """Return whether a process holds the directory of a program."""
    try:
        descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_NONBLOCK | _NO_LINK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 100, 0) == MARK
    finally:
        os.close(descriptor)
    return False


def _directories(place: str) -> Iterator[str]:
    """Yield the paths of this user's runtime directories in a place; none if this user cannot look there."""
    try:  # $XDG_RUNTIME_DIR is another user's in a shell that `su` has started
        with os.scandir(place) as found:
            entries = list(found)
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # the program has just removed its directory, or this user sees names alone
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                facts = entry.stat(follow_symlinks=False)
                if facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) == 0o700:
                    yield entry.path


def hold(directory: str) -> int:
    """Mark `directory` as used for as long as the returned descriptor, or an inherited copy of it, is open.

    Raises:
        OSError: there is no such directory, or its lock cannot be opened.
    """
    descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
    try:
        os.pwrite(descriptor, MARK, 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:  # no room is left
        os.close(descriptor)
        raise
    return descriptor


def remove_if_unused(directory: str) -> bool:
    """Remove the directory of a program if no process holds it any more; return whether it was removed."""
    return _remove(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_when_unused(directory: str, patience: float) -> None:
    """Remove the directory of a program as soon as no process holds it; give up after `patience` seconds.

    A process that is gone may hold its lock for a moment longer. After giving up, the caller must exit soon: a daemon
    thread still waits for the lock.
    """
    remover = OwnThread(_remove, "suitkaise-remove", (directory, fcntl.LOCK_EX))
    try:
        remover.start()
    except RuntimeError:  # no thread is left
        _remove(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        remover.join(patience)


def _remove(directory: str, how: int) -> bool:
    try:
        descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_NONBLOCK | _NO_LINK)
    except OSError:
        return False
    try:
        if os.read(descriptor, 100) != MARK:  # a directory of the user's that has such a name
            return False
        fcntl.flock(descriptor, how)
        _remove_tree(directory)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _remove_tree(directory: str) -> None:
    """Remove a directory with all that is in it, as far as that is possible.

    The lock is removed last: by it a `sweep` knows the directory, and removes the rest if this process is killed here.
    """
    for folder, folders, files in os.walk(directory, topdown=False):
        for name in sorted((*files, *folders), key=LOCK.__eq__):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                (os.rmdir if name in folders and not os.path.islink(path) else os.unlink)(path)
    with contextlib.suppress(OSError):
        os.rmdir(directory)
