"""Starts the keeper as a process of its own, with one socket to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

from suitkaise.platform.processes import GROUP_SIGNALS

__all__ = ["search_path", "start_keeper"]

_PROGRAM = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); "  # no json.py of the working folder
    "import json, os; a = json.loads(os.environ.pop('SUITKAISE_KEEPER')); sys.path[:] = a.pop(0); "
    "from suitkaise.engines.keeper import main; main(*a)"
)


def search_path() -> list[str]:
    """Return `sys.path` with absolute folders, which hold in any working directory."""
    return [_absolute(os.fspath(folder)) for folder in sys.path]


def _absolute(folder: str) -> str:
    try:
        return os.path.abspath(folder)
    except FileNotFoundError:  # relative to a working directory that is gone
        return folder


def start_keeper(
    directory: str, modules: list[str], orphan_timeout: float, *, for_commands: bool
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a keeper; return its process and the hub's end of its socket. For the arguments see `Keeper`.

    Raises:
        OSError: that is not possible now: no process, file descriptor or memory is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if theirs.fileno() <= 2:  # the number of a standard stream, which this program has closed
        with theirs as low:
            theirs = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
    with theirs:
        settings = [search_path(), theirs.fileno(), directory, modules, orphan_timeout, for_commands]
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        # The keeper inherits the mask, and so survives a signal to the whole group before it ignores such signals.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            program = subprocess.Popen(
                [sys.executable, *flags, "-c", _PROGRAM],
                stdin=_stream(0) if for_commands else subprocess.DEVNULL,  # a command may inherit it
                stdout=_stream(1),
                stderr=_stream(2),
                cwd=os.sep,  # the hub's working directory may be gone; each worker changes to it
                pass_fds=[theirs.fileno()],
                start_new_session=for_commands,  # a signal to the hub's group spares it, so that it ends the commands
                env={**os.environ, "SUITKAISE_KEEPER": json.dumps(settings)},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    ours.setblocking(False)
    return program, ours


def _stream(number: int) -> int | None:
    """Return the `Popen` argument for this standard stream: inherit it, or /dev/null if the hub has closed it.

    A closed number would be given to the next file or connection, which then gets all that is written to the stream.
    """
    with contextlib.suppress(OSError):
        if os.get_inheritable(number):
            return None
    return subprocess.DEVNULL
