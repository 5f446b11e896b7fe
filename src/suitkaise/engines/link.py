"""The hub's line to the keeper, which is replaced when it dies."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from suitkaise.engines.engine import Site
from suitkaise.engines.keeper import DECODE, ENCODE, has_ended
from suitkaise.preloading import listeners, wanted

__all__ = ["PATIENCE", "KeeperLink"]

logger: logging.Logger = logging.getLogger("suitkaise.keeper")

PATIENCE = 5.0
"""Seconds for which the keeper may owe an answer and say nothing at all; then it is replaced (it is stopped, say)."""

BOOT_PATIENCE = 60.0
"""The same for one that is still starting: it imports what is to be preloaded."""

_FAILURES = 5
"""How many keepers in a row may end before one has said anything."""

_PROGRAM = (
    "import sys; sys.flags.safe_path or sys.path.pop(0); "  # no json.py of the working folder
    "import json, os; a = json.loads(os.environ.pop('SUITKAISE_KEEPER')); sys.path[:] = a.pop(0); "
    "from suitkaise.engines.keeper import main; main(*a)"
)


class Newborn(Protocol):
    """What the link starts: a process."""

    grace: float
    pid: int | None
    pidfd: int | None
    last: bool
    dead: bool

    def connect(self) -> socket.socket:
        """Make the control connection, with the recipe in it; returns the worker's end."""
        ...

    def watch(self) -> None:
        """Begin to listen to it."""

    def withdraw(self) -> bool:
        """Whether there is no process, nor ever will be of what a dead keeper was asked."""
        ...

    def stillborn(self, error: str) -> None:
        """The keeper could not fork."""

    def status(self, code: int) -> None:
        """The keeper has read its exit status: negative for a signal."""

    def status_lost(self) -> None:
        """The keeper is gone, so nobody will read its exit status."""

    def drop(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""


def _path() -> list[str]:
    return [_absolute(os.fspath(folder)) for folder in sys.path]


def _absolute(folder: str) -> str:
    try:
        return os.path.abspath(folder)
    except FileNotFoundError:  # relative to a working folder that is gone
        return folder


class KeeperLink:
    """Starts the keeper, talks to it, and replaces it when it dies."""

    def __init__(self, site: Site, on_lost: Callable[[], None], *, for_commands: bool = False) -> None:
        self._site = site
        self._on_lost = on_lost
        self._for_commands = for_commands
        self._burying: set[int] = set()
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._newborns: dict[int, Newborn] = {}
        self._adopted: list[Newborn] = []
        self._backlog: list[tuple[bytes, list[int]]] = []
        self._closed = False
        self._failures = 0
        self._waiting = False
        self._watched = False
        self._down = False
        self._start()
        listeners.append(self._preload)

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._program.pid

    # ------------------------------------------------------------ from any thread
    def spawn(self, newborn: Newborn) -> None:
        """Ask for a process."""
        with self._lock:
            self._ask(newborn)

    def _ask(self, newborn: Newborn) -> None:
        if self._down:
            self._replace()
        number = next(self._numbers)
        with newborn.connect() as theirs:
            descriptor = os.dup(theirs.fileno())
        self._newborns[number] = newborn
        self._send(ENCODE(("spawn", number, newborn.grace, newborn.last)), descriptor)
        self._site.reactor.call(newborn.watch)
        self.owes()

    def owes(self) -> None:
        """The keeper owes an answer: see to it that it comes, or that the keeper is replaced."""
        with self._lock:
            if self._watched or self._closed:
                return
            self._watched = True
            self._heard = time.monotonic()
            self._look_at(self._heard + PATIENCE)

    def heard(self) -> None:
        """The keeper has shown that it works."""
        self._heard = time.monotonic()

    def _look_at(self, when: float) -> None:
        self._site.reactor.at(when, lambda: self._look(when))

    def _look(self, due: float) -> None:
        now = time.monotonic()
        with self._lock:
            owed = (one for number, one in self._newborns.items() if number not in self._burying)
            if self._closed or not any(one.pid is None or one.dead for one in owed):
                self._watched = False
                return
            until = self._heard + (PATIENCE if self._up else BOOT_PATIENCE)
            if now - due > PATIENCE / 10:  # this program itself was stopped or starved: be fair, look once more
                until = max(until, now + PATIENCE)
            if now < until:
                self._look_at(min(until, now + PATIENCE))
                return
            self._watched = False
            self._program.kill()  # its end-of-file does the rest

    def _modules(self) -> list[str]:
        """What the keeper loads: commands need nothing of the user's."""
        return ["suitkaise.workers.command"] if self._for_commands else wanted()

    def _preload(self) -> None:
        """Hand on what `preload` has added; the keeper is as good as new until it is done."""
        if self._for_commands:
            return
        with self._lock:
            if not (self._down or self._closed):
                self._up = False
                self.heard()
                self._send(ENCODE(("preload", _path(), wanted())))

    def _send(self, data: bytes, *descriptors: int) -> None:
        self._backlog.append((data, list(descriptors)))
        self._flush()

    def _flush(self) -> None:
        """Send what waits, in order; takes the descriptors with it."""
        with self._lock:
            while self._backlog:
                data, descriptors = self._backlog[0]
                try:
                    socket.send_fds(self._sock, [data], descriptors, socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    break
                except OSError:
                    return  # the keeper is dead: its end-of-file starts a new one, which is asked anew
                del self._backlog[0]
                for descriptor in descriptors:
                    os.close(descriptor)
            waiting = bool(self._backlog)
            if waiting is not self._waiting:
                self._waiting = waiting
                self._site.reactor.call(self._watch)

    def _watch(self) -> None:
        with contextlib.suppress(KeyError, ValueError):  # closed
            self._site.reactor.watch_writes(self._sock, self._on_event, also=self._waiting)

    # ------------------------------------------------------------ the keeper's life
    def _replace(self) -> None:
        """Start a new keeper and tell it of the living."""
        self._start()
        self._down = False
        for newborn in self._adopted:
            if newborn.pidfd is not None:
                self._send(ENCODE(("adopt", newborn.grace, newborn.last)), os.dup(newborn.pidfd))

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        settings = [
            _path(),
            theirs.fileno(),
            self._site.directory,
            self._modules(),
            self._site.orphan_timeout,
            self._for_commands,
        ]
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with theirs:
            self._program = subprocess.Popen(
                [sys.executable, *flags, "-c", _PROGRAM],
                stdin=subprocess.DEVNULL,
                cwd=os.sep,  # the program's own may be gone; workers go where the program is
                pass_fds=[theirs.fileno()],
                start_new_session=self._for_commands,  # what kills the program's whole group leaves it to bury commands
                env={**os.environ, "SUITKAISE_KEEPER": json.dumps(settings)},
            )
        self._sock = ours
        self._waiting = False
        self._up = False
        self._heard = time.monotonic()
        self._site.reactor.call(lambda: self._site.reactor.watch(ours, self._on_event))

    def _on_event(self) -> None:
        if self._backlog:
            self._flush()
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._failures = 0
            self._heard = time.monotonic()
            match DECODE(data):
                case ("up",):
                    self._up = True
                case ("trouble", str(text)):
                    logger.warning("%s", text)
                case ("burying", int(number)):
                    self._burying.add(number)
                case ("exited", int(number), int(code)):
                    self._burying.discard(number)
                    if number in self._newborns:
                        self._newborns.pop(number).status(code)
                case ("failed", int(number), str(error)):
                    self._newborns.pop(number).stillborn(error)

    def _lost(self) -> None:
        """The keeper died: a new one is told of the living, and asked for what the old one did not answer."""
        with self._lock:
            self._site.reactor.unwatch(self._sock)
            self._sock.close()
            self._program.wait()
            if self._closed:
                return
            for _, descriptors in self._backlog:
                for descriptor in descriptors:
                    os.close(descriptor)
            self._backlog.clear()
            newborns, self._newborns = list(self._newborns.values()), {}
            self._burying.clear()
            asked = [newborn for newborn in newborns if newborn.pid is None and newborn.withdraw()]
            alive = [newborn for newborn in newborns if newborn not in asked]
            self._adopted = [newborn for newborn in (*alive, *self._adopted) if newborn.pidfd is not None]
            self._watched = False
            self._failures += 1
            if self._failures > _FAILURES:  # the next start will try again
                self._down = True
                trouble = f"the keeper ended {self._failures} times in a row, exit code {self._program.returncode}"
                for newborn in asked:
                    newborn.stillborn(trouble)
            else:
                self._replace()
                for newborn in asked:
                    self._ask(newborn)
        for newborn in alive:
            newborn.status_lost()
        self._on_lost()

    def close(self) -> None:
        """End the keeper and wait for it."""
        done = threading.Event()

        def end() -> None:
            with self._lock:
                self._closed = True
                self._send(ENCODE(("quit",)))
                self._site.reactor.unwatch(self._sock)
                self._sock.close()
            done.set()

        if self._closed:
            return
        listeners.remove(self._preload)
        self._site.reactor.call(end)
        done.wait()
        self._bid_farewell()

    def _bid_farewell(self) -> None:
        if self._program.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # where SIGCHLD is ignored nothing waits to be reaped
            pidfd = os.pidfd_open(self._program.pid)
            if not has_ended(pidfd, PATIENCE):
                self._program.kill()
            os.close(pidfd)
        self._program.wait()

    def drop(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""
        listeners.remove(self._preload)
        self._sock.close()
        for newborn in (*self._newborns.values(), *self._adopted):
            newborn.drop()

    def __repr__(self) -> str:
        return f"KeeperLink(pid={self._program.pid}, workers={len(self._newborns)})"
