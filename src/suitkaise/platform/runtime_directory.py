"""The private directory of a program: where it is made, which processes hold it, and when it is removed.

Every process that uses the directory holds a shared lock on a file in it. The directory may be removed when an
exclusive lock can be had: then no process uses it any more, however they all have ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading

__all__ = [
    "BOARD",
    "HUB_SOCKET",
    "STRAGGLERS",
    "base_directory",
    "hold",
    "make_directory",
    "remove_directory",
    "remove_if_unused",
    "remove_when_unused",
    "stack_file",
    "sweep",
    "tail_file",
]

PREFIX = "suitkaise-"

LONGEST_BASE = 60
"""Bytes: the path of a Unix socket has at most 107, and ours lie two levels below."""

LOCK = "lock"
"""The file in the directory on which every process that uses the directory holds a shared lock."""

HUB_SOCKET = "hub.sock"
"""The socket in the directory on which the hub serves the requests of workers."""

BOARD = "board"
"""The file in the directory with the status board."""

STRAGGLERS = 1.0
"""Seconds for which the last process of a program waits for others to release its directory."""


def base_directory() -> str:
    """Return where runtime directories are made: `$XDG_RUNTIME_DIR`, else `/dev/shm`, else the temporary directory."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"]
    fitting = [one for one in candidates if one and len(os.fsencode(one)) <= LONGEST_BASE and os.path.isdir(one)]
    return next((one for one in fitting if os.access(one, os.W_OK | os.X_OK)), tempfile.gettempdir())


def make_directory() -> tuple[str, int]:
    """Make a private directory for this program; return it with the descriptor that holds it.

    It gets its final name only when it is held, so that no `sweep` of another program removes it in between.
    """
    hidden = tempfile.mkdtemp(prefix=f".{PREFIX}{os.getpid()}-", dir=base_directory())
    folder, name = os.path.split(hidden)
    directory = os.path.join(folder, name[1:])
    with contextlib.ExitStack() as made:
        made.callback(shutil.rmtree, hidden, ignore_errors=True)
        lock = hold(hidden)
        made.callback(os.close, lock)
        os.rename(hidden, directory)
        made.pop_all()
    return directory, lock


def tail_file(directory: str, serial: int) -> str:
    """Return the path of the file with the last output of the incarnation that has this serial number."""
    return os.path.join(directory, f"tail-{serial}")


def stack_file(directory: str, pid: int) -> str:
    """Return the path of the file to which a hung process writes its stack."""
    return os.path.join(directory, f"stack-{pid}")


def remove_directory(directory: str, lock: int) -> None:
    """Remove the directory of this program, whose descriptor is `lock`."""
    os.close(lock)
    if not remove_if_unused(directory):
        shutil.rmtree(directory, ignore_errors=True)


def sweep() -> None:
    """Remove the directories of programs that were killed."""
    for entry in os.scandir(base_directory()):
        with contextlib.suppress(FileNotFoundError):  # the program has just removed its directory
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                facts = entry.stat(follow_symlinks=False)
                if facts.st_uid == os.getuid() and stat.S_IMODE(facts.st_mode) == 0o700:
                    remove_if_unused(entry.path)


def hold(directory: str) -> int:
    """Mark `directory` as used for as long as the returned descriptor, or an inherited copy of it, is open."""
    descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def remove_if_unused(directory: str) -> bool:
    """Remove the directory of a program if no process holds it any more; return whether it was removed."""
    return _remove(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_when_unused(directory: str, patience: float) -> None:
    """Remove the directory of a program as soon as no process holds it; give up after `patience` seconds.

    A process that is gone may hold its lock for a moment longer. After giving up, the caller must exit soon: a daemon
    thread still waits for the lock.
    """
    remover = threading.Thread(target=_remove, args=(directory, fcntl.LOCK_EX), daemon=True)
    remover.start()
    remover.join(patience)


def _remove(directory: str, how: int) -> bool:
    try:
        descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, how)
        shutil.rmtree(directory, ignore_errors=True)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
