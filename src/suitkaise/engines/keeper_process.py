"""Starts the keeper as a process of its own, with one socket to it.

Its settings come over the socket, so that it can import its modules while the hub imports its own. They are written by
`marshal`, which is loaded in each interpreter: keeper and hub are of the same version.

A frozen program (PyInstaller, cx_Freeze) has no interpreter that could run the keeper: `sys.executable` is the program.
There the program itself is started, and becomes the keeper as soon as it imports suitkaise.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import _bootstrap
from typing import Any, NamedTuple, Never

from suitkaise.errors import SuitkaiseError
from suitkaise.platform.descriptors import above_streams
from suitkaise.platform.inheritance import Inheritance, inheritance
from suitkaise.platform.processes import GROUP_SIGNALS
from suitkaise.platform.sockets import blocking, socket_pair

__all__ = ["Launched", "become_keeper", "launched_early", "search_path", "start_keeper"]

_PROGRAM = (
    "import gc; gc.disable(); "  # a twentieth of the time of the imports; the keeper enables it
    "import sys; sys.flags.safe_path or sys.path.pop(0); "  # no json.py of the working folder
    "import marshal, os; a = marshal.loads(bytes.fromhex(os.environ.pop('SUITKAISE_KEEPER'))); sys.path[:] = a.pop(0); "
    "from suitkaise.engines.keeper import main; main(*a)"
)


def become_keeper() -> Never:
    """Run the keeper in this process, which a frozen program has started, and end; called at the import of suitkaise.

    The modules that are half imported now (the user's, which import suitkaise) are never completed here, so the workers
    must import them anew, and the locks of their imports are never released.
    """
    for name, module in list(sys.modules.items()):
        spec: Any = getattr(module, "__spec__", None)
        if getattr(spec, "_initializing", False):
            if name == "suitkaise":
                spec._initializing = False
            else:
                del sys.modules[name]
    _bootstrap._module_locks.clear()  # type: ignore[attr-defined]
    sys.modules["__main__"] = types.ModuleType("__main__")
    settings = marshal.loads(bytes.fromhex(os.environ.pop("SUITKAISE_KEEPER")))
    sys.path[:] = settings.pop(0)
    from suitkaise.engines.keeper import main

    main(*settings)
    raise AssertionError("the keeper has returned")


def search_path() -> list[str]:
    """Return `sys.path` with absolute folders, which hold in any working directory, and without what is no path."""
    return [_absolute(os.fsdecode(folder)) for folder in sys.path if isinstance(folder, (str, os.PathLike))]


def _absolute(folder: str) -> str:
    with contextlib.suppress(FileNotFoundError):  # relative to a working directory that is gone
        folder = os.path.abspath(folder)
    return str(folder)


class Launched(NamedTuple):
    """A keeper that imports its modules, and waits for its settings."""

    program: subprocess.Popen[bytes]
    sock: socket.socket
    """The hub's end of its socket."""
    inherited: Inheritance
    """What it has got from the hub."""


_early: list[Launched] = []


@contextlib.contextmanager
def launched_early(wanted: bool) -> Iterator[None]:
    """If wanted, launch a keeper that imports its modules while the block imports the runtime, and starts a tree."""
    router = sys.modules.get("suitkaise.messaging.router")  # a worker's process has loaded it
    if wanted and "suitkaise.runtime.runtime" not in sys.modules and not (router and router.in_worker_process()):
        with contextlib.suppress(OSError, SuitkaiseError):  # `start_keeper` reports it
            _early.append(_launch(for_commands=False))
    try:
        yield
    finally:
        while _early:  # no tree was started
            launched = _early.pop()
            launched.sock.close()
            launched.program.kill()
            launched.program.wait()


def start_keeper(
    directory: str, board: int, modules: list[str], orphan_timeout: float, *, for_commands: bool
) -> Launched:
    """Start a keeper. For the arguments see `keeper.main`.

    Raises:
        OSError: that is not possible now: no process, file descriptor or memory is left.
        SuitkaiseError: there is no interpreter.
    """
    launched = None
    with contextlib.suppress(IndexError):
        launched = None if for_commands else _early.pop()
    if launched is None:
        launched = _launch(for_commands=for_commands)
    settings = marshal.dumps([directory, modules, orphan_timeout, for_commands])
    with contextlib.suppress(ConnectionError):  # it has ended: so says the end-of-file
        socket.send_fds(launched.sock, [settings], [board], socket.MSG_NOSIGNAL)
    launched.sock.setblocking(False)
    return launched


def _launch(*, for_commands: bool) -> Launched:
    command = _command()
    inherited = inheritance()
    ours, theirs = socket_pair(socket.SOCK_SEQPACKET)
    theirs = blocking(socket.socket(fileno=above_streams(theirs.detach())))
    with theirs:
        # The keeper inherits the mask, and so survives a signal to the whole group before it ignores such signals.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            program = subprocess.Popen(
                command,
                stdin=_stream(0) if for_commands else subprocess.DEVNULL,  # a command may inherit it
                stdout=_stream(1),
                stderr=_stream(2),
                cwd=os.sep,  # the hub's working directory may be gone; each worker changes to it
                pass_fds=[theirs.fileno()],
                start_new_session=for_commands,  # a signal to the hub's group spares it, so that it ends the commands
                env={**os.environ, "SUITKAISE_KEEPER": marshal.dumps([search_path(), theirs.fileno()]).hex()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Launched(program, ours, inherited)


def _command() -> list[str]:
    if not sys.executable:
        raise SuitkaiseError(
            "workers are forked by a process that runs a Python interpreter, and sys.executable is empty (this program "
            "embeds Python): set sys.executable to the path of an interpreter of this version before a tree is started"
        )
    if getattr(sys, "frozen", False):
        return [sys.executable]
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-c", _PROGRAM]


def _stream(number: int) -> int | None:
    """Return the `Popen` argument for this standard stream: inherit it, or /dev/null if the hub has closed it.

    A closed number would be given to the next file or connection, which then gets all that is written to the stream.
    """
    with contextlib.suppress(OSError):
        if os.get_inheritable(number):
            return None
    return subprocess.DEVNULL
