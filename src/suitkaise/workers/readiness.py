"""How a command shows that it is ready: a line of output, a port or a socket that answers, or a function."""

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
from suitkaise.platform.sockets import connect_unix

__all__ = ["Probing", "Readiness", "check_ready", "pattern_of", "probe_of"]

Readiness: TypeAlias = str | re.Pattern[str] | int | tuple[str, int] | Path | Callable[[], object] | None
"""The values that `Command(ready=...)` takes."""

_CONNECT = 1.0
"""Seconds of one attempt to connect."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
"""Seconds between two attempts; the kernel has no notification for a socket that begins to listen."""


def check_ready(title: str, ready: Any) -> None:
    """Raise SpecError unless `ready` is a valid `Readiness`; `title` names the command."""
    match ready:
        case None | Path() | re.Pattern(pattern=str()):
            return
        case str():
            try:
                re.compile(ready)
            except re.error as error:
                raise SpecError(f"{title}: ready={ready!r} is no regular expression: {error}") from None
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
        f"{title}: ready must be a regular expression for a line of output (text or re.Pattern), a port from 1 to "
        f"65535, (host, port), the Path of a Unix socket, a function without arguments, or None, not {ready!r}"
    )


def pattern_of(ready: Readiness) -> re.Pattern[str] | None:
    """Return the pattern that a line of output must match; None if `ready` is something else."""
    return re.compile(ready) if isinstance(ready, (str, re.Pattern)) else None


def probe_of(ready: Readiness, folder: str) -> Callable[[], object] | None:
    """Return the function to call until its value is true; None if `ready` is a pattern. Paths begin at `folder`."""
    match ready:
        case int():
            return partial(_port_answers, "127.0.0.1", ready)
        case tuple():
            return partial(_port_answers, *ready)
        case Path():
            return partial(_socket_answers, os.path.join(folder, ready))
        case None | str() | re.Pattern():
            return None
    return ready


def _port_answers(host: str, port: int) -> bool:
    socket.create_connection((host, port), _CONNECT).close()
    return True


def _socket_answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT)
        connect_unix(sock, path)
    return True


class Probing:
    """Calls a probe until it returns something true, in a thread, because a probe may wait for the command.

    An `OSError` means not ready (connection refused). When the probing is over, the descriptor is readable, and `ready`
    is True or `error` is the exception that the probe has raised.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self.ready: bool = False
        self.error: BaseException | None = None
        self.descriptor: int = os.eventfd(0, os.EFD_CLOEXEC)
        self._probe = probe
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="suitkaise-ready", daemon=True).start()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                self.ready = bool(self._probe())
            except OSError:
                self.ready = False
            except BaseException as error:
                self.error = error
            if self.ready or self.error is not None:
                os.eventfd_write(self.descriptor, 1)
                return
            self._stopped.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def stop(self) -> None:
        """Stop the probing."""
        self._stopped.set()
