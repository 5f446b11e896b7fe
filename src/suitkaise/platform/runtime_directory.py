"""The private directory of a program: where it is made, who holds it, and when it is removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

__all__ = ["LOCK", "STRAGGLERS", "hold", "remove_if_unused", "remove_when_unused"]

PREFIX = "suitkaise-"
LONGEST_BASE = 60
"""Bytes: the path of a Unix socket has at most 107, and ours lies two levels below."""


def base_directory() -> str:
    """Where runtime directories are made: `$XDG_RUNTIME_DIR`, else `/dev/shm`, else the temporary directory."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"]
    fitting = [one for one in candidates if one and len(os.fsencode(one)) <= LONGEST_BASE and os.path.isdir(one)]
    return next((one for one in fitting if os.access(one, os.W_OK | os.X_OK)), tempfile.gettempdir())


def _make_directory() -> tuple[str, int]:
    """A private directory for this program, and the descriptor that holds it; never seen without being held."""
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


def _remove_directory(directory: str, lock: int) -> None:
    os.close(lock)
    if not remove_if_unused(directory):
        shutil.rmtree(directory, ignore_errors=True)


def sweep() -> None:
    """Remove directories that programs which were killed have left behind."""
    for entry in os.scandir(base_directory()):
        with contextlib.suppress(FileNotFoundError):  # its program has just removed it
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                facts = entry.stat(follow_symlinks=False)
                if facts.st_uid == os.getuid() and stat.S_IMODE(facts.st_mode) == 0o700:
                    remove_if_unused(entry.path)


LOCK = "lock"
"""The file in the program's directory that everyone who uses it holds a shared lock on."""

STRAGGLERS = 1.0
"""Seconds that the last one of a program waits for others to let go of its directory."""


def hold(directory: str) -> int:
    """Say that `directory` is in use: as long as the returned descriptor, or an inherited copy, is open."""
    descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def remove_if_unused(directory: str) -> bool:
    """Remove a program's directory if nobody holds it any more; whether it was so."""
    return _remove(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_when_unused(directory: str, patience: float) -> None:
    """Remove a program's directory as soon as nobody holds it; give up after `patience` seconds, and exit then.

    A process that is gone may hold its lock for a moment longer.
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
