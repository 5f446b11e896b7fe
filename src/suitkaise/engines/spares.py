"""Spares: processes that stand by for one child, its recipe unpacked, so that a restart waits for no fork or import."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from suitkaise.engines.engine import EngineContext
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.keeper_client import PATIENCE, KeeperClient
from suitkaise.engines.worker_main import ProcessContext
from suitkaise.messaging import codec, wire
from suitkaise.platform.preload import preload

__all__ = ["SETTLED", "SpareSpec", "Spares", "place"]

logger: logging.Logger = logging.getLogger("suitkaise.keeper")

SETTLED = 1.0
"""Seconds: a spare that ends by itself is replaced at once if it was there for so long, else after the next start."""


class Tenant(Protocol):
    """Who may move into a spare process."""

    def adopt(self, process: ForkedProcess) -> bool:
        """Live there from now on; False if the process is no longer there."""
        ...


@dataclass(frozen=True, slots=True)
class SpareSpec:
    """What stands by for the child at `path`: so many processes, each with this recipe and these sockets."""

    path: str
    number: int
    grace: float
    recipe: bytes
    sockets: list[socket.socket]


class Spares:
    """All spare processes of a program."""

    def __init__(self, site: EngineContext, link: Callable[[], KeeperClient]) -> None:
        self._site = site
        self._link = link
        self._lock = threading.Lock()
        self._wanted: dict[str, SpareSpec] = {}
        self._standing: dict[str, list[_Spare]] = {}
        self._leaving: set[_Spare] = set()

    def fill(self, wanted: SpareSpec) -> None:
        """See to it that as many as are wanted stand by, or are on their way, until they are dropped."""
        with self._lock:
            self._wanted[wanted.path] = wanted
        self._top_up(wanted.path)

    def _top_up(self, path: str) -> None:
        link = self._link()
        with self._lock:
            wanted = self._wanted.get(path)
            if wanted is None:
                return
            standing = self._standing.setdefault(path, [])
            new = [_Spare(self, self._site, link, wanted) for _ in range(wanted.number - len(standing))]
            standing += new
        for spare in new:
            spare.process.start()

    def assign(self, path: str, tenant: Tenant) -> bool:
        """Let somebody move into a process that stands by at `path`; False if none is ready."""
        while (spare := self._take(path)) is not None:
            if tenant.adopt(spare.process):
                with self._lock:
                    self._leaving.discard(spare)
                return True
        return False

    def _take(self, path: str) -> _Spare | None:
        """One that is ready: nobody else will move in, or dismiss it."""
        with self._lock:
            standing = self._standing.get(path, [])
            for spare in standing:
                if spare.ready:
                    standing.remove(spare)
                    self._leaving.add(spare)
                    return spare
        return None

    def drop(self, path: str) -> None:
        """Nobody is to stand by at `path` any more."""
        with self._lock:
            self._wanted.pop(path, None)
            leaving = self._standing.pop(path, [])
            self._leaving.update(leaving)
        for spare in leaving:
            spare.dismiss()

    def renew(self) -> None:
        """Their keeper is gone, so nobody would read their exit statuses: others take their places."""
        with self._lock:
            everybody = [spare for standing in self._standing.values() for spare in standing]
            self._leaving.update(everybody)
            self._standing.clear()
            paths = list(self._wanted)
        for spare in everybody:
            spare.dismiss()
        for path in paths:
            self._top_up(path)

    def close(self) -> None:
        """All must go; back when they are gone."""
        for path in list(self._wanted):
            self.drop(path)
        for spare in list(self._leaving):
            spare.gone.wait(PATIENCE)

    def lost(self, spare: _Spare, reason: str) -> None:
        """A spare is gone. Who has dismissed it knows; else another one takes its place."""
        with self._lock:
            self._leaving.discard(spare)
            standing = self._standing.get(spare.path, [])
            if spare not in standing:
                return
            standing.remove(spare)
        logger.warning("a spare process of %s is gone: %s", spare.path, reason)
        if spare.settled:
            self._top_up(spare.path)


class _Spare:
    """One process that stands by."""

    def __init__(self, spares: Spares, site: EngineContext, link: KeeperClient, wanted: SpareSpec) -> None:
        self.path: str = wanted.path
        self.ready: bool = False
        self.gone: threading.Event = threading.Event()
        self._spares = spares
        self._wanted = wanted
        self._dismissed = False
        self._began = time.monotonic()
        self.process: ForkedProcess = ForkedProcess(site, link, wanted.path, wanted.grace, False, self)

    @property
    def settled(self) -> bool:
        """Whether it was there for long enough to be worth another one."""
        return self.ready and time.monotonic() - self._began >= SETTLED

    def dismiss(self) -> None:
        """It is not needed."""
        self._dismissed = True
        self.process.signal(signal.SIGKILL)

    # ------------------------------------------------------------ its process (reactor's thread)
    def first_frame(self) -> tuple[bytes, list[socket.socket]]:
        """The recipe, to be unpacked in advance."""
        where = place(self.path)
        frame = wire.encode(("stand by", codec.dumps(where)), self._wanted.recipe, long_header=True)
        return frame, self._wanted.sockets

    def on_flushed(self) -> None:
        """It looks at nothing but its connection."""

    def on_started(self) -> None:
        """It is there."""
        if self._dismissed:
            self.process.signal(signal.SIGKILL)

    def on_frame(self, frame: wire.Frame) -> None:
        """What it says."""
        match frame[0]:
            case ("standing by",):
                self.ready = True
            case ("preload", list(names)):
                preload(*names)

    def on_exit(self, code: int | None) -> None:
        """It is gone."""
        self.gone.set()
        self._spares.lost(self, f"exit code {code}")

    def on_spawn_failed(self, error: str) -> None:
        """It could not be forked."""
        self.gone.set()
        self._spares.lost(self, error)

    def kill(self, why: str) -> None:
        """It must go."""
        self.process.signal(signal.SIGKILL)


def place(owner: str) -> ProcessContext:
    """Where a new process goes: to where this program is at the moment."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = os.sep
    return ProcessContext(owner, directory, list(sys.path), list(sys.argv))
