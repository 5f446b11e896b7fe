"""When a command is ready: a line of its output, a port or a socket that answers, or what a function says."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from suitkaise.errors import SpecError

__all__ = ["Probing", "Ready", "check_ready", "pattern_of", "probe_of"]

Ready: TypeAlias = str | re.Pattern[str] | int | tuple[str, int] | Path | Callable[[], object] | None
"""What `Command(ready=...)` takes."""

_CONNECT = 1.0
"""Seconds that one attempt to connect may take."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
"""Seconds between two looks: nothing tells that somebody else has begun to listen."""


def check_ready(who: str, ready: Any) -> None:
    """Raise SpecError unless `ready` is one of the things that readiness can be told by."""
    match ready:
        case None | Path() | re.Pattern(pattern=str()):
            return
        case str():
            try:
                re.compile(ready)
            except re.error as error:
                raise SpecError(f"{who}: ready={ready!r} is no regular expression: {error}") from None
            return
        case bool():
            pass
        case int() if 0 < ready < 1 << 16:
            return
        case (str(), int(port)) if isinstance(ready, tuple) and not isinstance(port, bool) and 0 < port < 1 << 16:
            return
        case type():
            pass
        case _ if callable(ready):
            return
    raise SpecError(
        f"{who}: ready must be a regular expression for a line of output (text or re.Pattern), a port from 1 to 65535, "
        f"(host, port), the Path of a Unix socket, a function without arguments, or None, not {ready!r}"
    )


def pattern_of(ready: Ready) -> re.Pattern[str] | None:
    """What a line must match, if readiness is told by one."""
    return re.compile(ready) if isinstance(ready, (str, re.Pattern)) else None


def probe_of(ready: Ready, folder: str) -> Callable[[], object] | None:
    """What is to be asked until it says yes, if readiness is told by that; `folder`: where paths begin."""
    match ready:
        case int():
            return partial(_answers, socket.AF_UNSPEC, ("127.0.0.1", ready))
        case tuple():
            return partial(_answers, socket.AF_UNSPEC, ready)
        case Path():
            return partial(_answers, socket.AF_UNIX, os.path.join(folder, ready))
        case None | str() | re.Pattern():
            return None
    return ready


def _answers(family: socket.AddressFamily, address: Any) -> bool:
    if family != socket.AF_UNIX:
        socket.create_connection(address, _CONNECT).close()
        return True
    folder, name = os.path.split(address)
    descriptor = os.open(folder or os.curdir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(_CONNECT)
            sock.connect(f"/proc/self/fd/{descriptor}/{name}")  # a longer address than 107 bytes would be refused
    finally:
        os.close(descriptor)
    return True


class Probing:
    """Asks a probe in a thread of its own, since it may wait for the command, until it says yes.

    An `OSError` means no: the connection was refused, say. Its descriptor is readable when it is over; `ready` is
    then True, or `error` is what the probe has raised.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self.ready: bool = False
        self.error: BaseException | None = None
        self.descriptor: int = os.eventfd(0, os.EFD_CLOEXEC)
        self._probe = probe
        self._over = threading.Event()
        threading.Thread(target=self._run, name="suitkaise-ready", daemon=True).start()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._over.is_set():
            try:
                self.ready = bool(self._probe())
            except OSError:
                self.ready = False
            except BaseException as error:
                self.error = error
            if self.ready or self.error is not None:
                os.eventfd_write(self.descriptor, 1)
                return
            self._over.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
