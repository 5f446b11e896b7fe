"""How a command shows that it is ready: a line of output, a port or a socket that answers, or a function.

A port or a Unix socket counts only if the command listens there, or a process that the command has started: an old
instance that still runs answers as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from suitkaise.errors import SpecError
from suitkaise.platform.flag import Flag
from suitkaise.platform.listeners import holder_of, holds_one, name_of, tcp_listeners, unix_listeners
from suitkaise.platform.processes import descendants, in_other_sessions
from suitkaise.platform.sockets import connect_unix, peer_of
from suitkaise.platform.threads import DaemonThread
from suitkaise.specs.signatures import is_async_function, misfit

__all__ = ["Probing", "Readiness", "check_ready", "described", "pattern_of", "probe_of"]

Readiness: TypeAlias = str | re.Pattern[str] | int | tuple[str, int] | Path | Callable[[], object] | None
"""The values that `Command(ready=...)` takes."""

_CONNECT = 1.0
"""Seconds of one attempt to connect."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
"""Seconds between two attempts; the kernel has no notification for a socket that begins to listen."""


def check_ready(title: str, ready: Any) -> None:
    """Raise SpecError unless `ready` is a valid `Readiness`; `title` names the command."""
    match ready:
        case bool() | "":  # each line of output holds the empty text
            pass
        case None | str() | Path() | re.Pattern(pattern=str()):
            return
        case int() if 0 < ready < 1 << 16:
            return
        case (str(), int(port)) if isinstance(ready, tuple) and not isinstance(port, bool) and 0 < port < 1 << 16:
            return
        case type():
            pass
        case _ if is_async_function(ready):
            raise SpecError(f"{title}: ready must be a plain function, not the async {ready!r}: nothing awaits it")
        case _ if callable(ready):
            if why := misfit(ready):
                raise SpecError(f"{title}: ready is called without arguments, and {ready!r} is {why}")
            return
    raise SpecError(
        f"{title}: ready must be a text or an re.Pattern for a line of output, a port from 1 to "
        f"65535, (host, port), the Path of a Unix socket, a function without arguments, or None, not {ready!r}"
    )


class TextOrPattern:
    """A text that a line of output must hold, or match: many a text that is meant literally is a pattern, too."""

    def __init__(self, text: str) -> None:
        self._text = text
        with warnings.catch_warnings():  # about sets in sets, for example: the text was not written as a pattern
            warnings.simplefilter("ignore")
            try:
                self._pattern: re.Pattern[str] | None = re.compile(text)
            except re.error:
                self._pattern = None

    def search(self, line: str) -> object:
        """Return something true if the line holds the text, or the text is a regular expression that matches."""
        return self._text in line or (self._pattern is not None and self._pattern.search(line))


def pattern_of(ready: Readiness) -> TextOrPattern | re.Pattern[str] | None:
    """Return the pattern that a line of output must match; None if `ready` is something else."""
    return TextOrPattern(ready) if isinstance(ready, str) else ready if isinstance(ready, re.Pattern) else None


def described(ready: Readiness) -> str:
    """Return what a command with this `ready` waits for, for a message."""
    match ready:
        case int():
            return f"an answer on port {ready}"
        case (host, port):
            return f"an answer on port {port} of {host}"
        case Path():
            return f"an answer on the socket {ready}"
        case str():
            return f"a line of output with {ready!r}"
        case re.Pattern(pattern=pattern):
            return f"a line of output that matches {pattern!r}"
    return f"a true value of {getattr(ready, '__qualname__', ready)}"


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


class HeldByOther(OSError):
    """A process that the command has not started listens where the command should; `holder` finds its name."""

    def __init__(self, where: str, holder: Callable[[], str]) -> None:
        super().__init__(f"{where} is held by a process that the command has not started")
        self.where = where
        self.holder = holder


def _port_answers(host: str, port: int) -> bool:
    for _ in range(2):  # if no process listens now, the one that has answered may have ended: does one answer still?
        with socket.create_connection((host, port), _CONNECT) as sock:
            here, there = sock.getsockname(), sock.getpeername()
        if here == there:  # connected with itself: the port is one of those that the kernel gives to clients
            return False
        if here[0] != there[0]:
            return True  # on another machine
        if listeners := tcp_listeners(there[0], port):
            if holds_one(in_other_sessions(descendants()), listeners):
                return True
            raise HeldByOther(f"port {port} of {host}", partial(holder_of, listeners))
    return True  # the kernel passes the connection on, to a container for example


def _socket_answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT)
        connect_unix(sock, path)
        listening, _ = peer_of(sock)
    # The peer is the process that has called `listen`: a daemon's first process, for example, which has ended.
    if listening != 0 and listening not in (own := set(in_other_sessions(descendants()))):
        listeners = unix_listeners(path)
        if not (listeners and holds_one(own, listeners)):
            raise HeldByOther(f"the socket {path}", partial(name_of, listening))
    return True


class Probing:
    """Calls a probe until it returns something true, in a thread, because a probe may wait for the command.

    An `OSError` means not ready (connection refused). The descriptor is readable when there is something new: `ready`
    is True, `error` is another exception that the probe has raised, or `held` names another process that listens.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self.ready: bool = False
        self.error: BaseException | None = None
        self.refusal: OSError | None = None
        self.held: str = ""
        self.descriptor: int = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._probe = probe
        self._stopped = Flag()
        DaemonThread(target=self._run, name="suitkaise-ready").start()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                self.ready = bool(self._probe())
                self.refusal = None
            except OSError as error:
                self.ready, self.refusal = False, error
                if isinstance(error, HeldByOther) and not self.held:
                    self.held = f"{error.where} is held by {error.holder()}"
                    os.eventfd_write(self.descriptor, 1)
            except BaseException as error:
                self.error = error
            if self.ready or self.error is not None:
                os.eventfd_write(self.descriptor, 1)
                return
            self._stopped.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def acknowledge(self) -> None:
        """Make the descriptor unreadable until there is something new again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def stop(self) -> None:
        """Stop the probing."""
        self._stopped.set()
