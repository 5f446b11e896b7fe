"""The hub's line to the keeper, which is replaced when it dies."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from suitkaise.engines.engine import EngineContext
from suitkaise.engines.keeper import DECODE, ENCODE, MANY
from suitkaise.engines.keeper_process import search_path, start_keeper
from suitkaise.platform.preload import listeners, wanted
from suitkaise.platform.processes import has_ended, is_at_work
from suitkaise.platform.reactor import TimerHandle

__all__ = ["PATIENCE", "KeeperClient"]

logger: logging.Logger = logging.getLogger("suitkaise.keeper")

PATIENCE = 5.0
"""Seconds for which the keeper may owe an answer and say nothing at all; then it is replaced (it is stopped, say)."""

DOUBTS = 10
"""How often in a row one that says nothing, but is at work or waits for a processor, is given the time again."""

BOOT_PATIENCE = 60.0
"""The same for one that is still starting: it imports what is to be preloaded."""

_FAILURES = 5
"""How many keepers in a row may end before one has said anything."""

_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
"""Seconds after which a keeper that could not be started is tried again: twice as many each time, up to these."""


class SpawnRequest(Protocol):
    """What the link starts: a process."""

    grace: float
    pid: int | None
    pidfd: int | None
    last: bool
    dead: bool

    def start(self) -> None:
        """Ask the link for it; what goes wrong is told by `spawn_failed`."""

    def connect(self) -> socket.socket:
        """Make the control connection, with the recipe in it; returns the worker's end."""
        ...

    def resume_reading(self) -> None:
        """Begin to listen to it."""

    def cancel_spawn(self) -> bool:
        """Whether there is no process, nor ever will be of what a dead keeper was asked."""
        ...

    def spawn_failed(self, error: str) -> None:
        """There is no process, and there will be none."""

    def status(self, code: int) -> None:
        """The keeper has read its exit status: negative for a signal."""

    def status_lost(self) -> None:
        """The keeper is gone, so nobody will read its exit status."""

    def abandon(self) -> None:
        """Nobody can listen to it any more: it is killed, and counts as ended."""

    def drop(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""


class KeeperClient:
    """Starts the keeper, talks to it, and replaces it when it dies."""

    def __init__(self, site: EngineContext, on_lost: Callable[[], None], *, for_commands: bool = False) -> None:
        self._site = site
        self._on_lost = on_lost
        self._for_commands = for_commands
        self._burying: set[int] = set()
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._newborns: dict[int, SpawnRequest] = {}
        self._adopted: set[SpawnRequest] = set()
        self._backlog: list[tuple[bytes, list[int]]] = []
        self._closed = False
        self._failures = 0
        self._waiting = False
        self._watched = False
        self._extensions = 0
        self._down = ""  # why there is no keeper
        self._outage = False  # from then on until the next one says something
        self._pause = _PAUSE
        self._retry: TimerHandle | None = None
        self._start()
        listeners.append(self._preload)

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._program.pid

    # ------------------------------------------------------------ from any thread
    def spawn(self, newborn: SpawnRequest) -> None:
        """Ask for a process.

        Raises:
            OSError: there will be none; there is no keeper, say, or no descriptor left.
        """
        with self._lock:
            if self._closed:
                raise ChildProcessError("the keeper is gone, and there will be no other")
            if self._down:
                try:
                    self._start()
                except OSError as error:
                    raise ChildProcessError(f"there is no keeper: {error}") from error
            number = next(self._numbers)
            theirs = newborn.connect().detach()
            self._newborns[number] = newborn
            self._send(ENCODE(("spawn", number, newborn.grace, newborn.last)), theirs)
            self._site.reactor.call_soon_threadsafe(newborn.resume_reading)
            self.expect_reply()

    def gone(self, newborn: SpawnRequest) -> None:
        """It has ended, and all is said."""
        self._adopted.discard(newborn)

    def expect_reply(self) -> None:
        """The keeper owes an answer: see to it that it comes, or that the keeper is replaced."""
        with self._lock:
            if self._watched or self._closed:
                return
            self._watched = True
            self.mark_alive()
            self._look_at(self._heard + PATIENCE)

    def mark_alive(self) -> None:
        """The keeper has shown that it works."""
        self._heard, self._extensions = time.monotonic(), 0

    def _look_at(self, when: float) -> None:
        self._site.reactor.call_at(when, lambda: self._look(when))

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
            if self._extensions < DOUBTS and is_at_work(self.pid):
                self._extensions += 1
                self._look_at(now + PATIENCE)
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
                self.mark_alive()
                self._send(ENCODE(("preload", search_path(), wanted())))

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
                self._site.reactor.call_soon_threadsafe(self._watch)

    def _watch(self) -> None:
        with contextlib.suppress(KeyError, ValueError):  # closed
            self._site.reactor.set_writer(self._sock, self._on_event, also=self._waiting)

    # ------------------------------------------------------------ the keeper's life
    def _start(self) -> None:
        """Start a keeper; it is told of the living.

        Raises:
            OSError: that is not possible now.
        """
        site = self._site
        self._program, self._sock = start_keeper(
            site.directory, self._modules(), site.orphan_timeout, for_commands=self._for_commands
        )
        self._waiting = False
        self._up = False
        self._down = ""
        self.mark_alive()
        if self._retry is not None:
            self._retry.cancel()
        self._site.reactor.call_soon_threadsafe(self._introduce)

    def _introduce(self) -> None:
        """Listen to a new keeper, and tell it of the living (in the reactor's thread, where they die)."""
        self._site.reactor.add_reader(self._sock, self._on_event)
        alive = [(newborn, newborn.pidfd) for newborn in self._adopted if newborn.pidfd is not None]
        for some in (alive[start : start + MANY] for start in range(0, len(alive), MANY)):
            about = [(newborn.grace, newborn.last) for newborn, _ in some]
            with contextlib.suppress(OSError):  # it is dead already; its socket has room for thousands
                socket.send_fds(self._sock, [ENCODE(("adopt", about))], [pidfd for _, pidfd in some])

    def _do_without(self, error: OSError) -> None:
        """There is no keeper, and so no new process, until a timer or a request has got one."""
        if not self._outage:
            logger.warning("no process can be started for now, since there is no keeper for it: %s", error)
        self._outage = True
        self._down = f"there is no keeper: {error}"
        self._retry = self._site.reactor.call_at(time.monotonic() + self._pause, self._try_again)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _try_again(self) -> None:
        with self._lock:
            if self._down and not self._closed:
                try:
                    self._start()
                except OSError as error:
                    self._do_without(error)

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
            self._failures, self._pause = 0, _PAUSE
            self.mark_alive()
            if self._outage:
                self._outage = False
                logger.warning("the keeper is back: processes can be started again")
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
                    self._newborns.pop(number).spawn_failed(error)

    def _lost(self) -> None:
        """The keeper died: a new one is told of the living, and asked for what the old one did not answer."""
        with self._lock:
            self._site.reactor.remove_reader(self._sock)
            self._sock.close()
            self._program.wait()
            if self._closed:
                return
            self._drop_backlog()
            newborns, self._newborns = list(self._newborns.values()), {}
            self._burying.clear()
            asked = [newborn for newborn in newborns if newborn.pid is None and newborn.cancel_spawn()]
            alive = [newborn for newborn in newborns if newborn not in asked]
            self._adopted.update(newborn for newborn in alive if newborn.pidfd is not None)
            self._watched = False
            self._failures += 1
            try:
                if self._failures > _FAILURES:
                    code = self._program.returncode
                    raise ChildProcessError(f"{self._failures} of them ended in a row, the last one with code {code}")
                self._start()
            except OSError as error:
                self._do_without(error)
            trouble = self._down
        for newborn in alive:
            newborn.status_lost()
        for newborn in asked:
            if trouble:
                newborn.spawn_failed(trouble)
            else:
                newborn.start()
        self._on_lost()

    def _drop_backlog(self) -> None:
        for _, descriptors in self._backlog:
            for descriptor in descriptors:
                os.close(descriptor)
        self._backlog.clear()

    def close(self) -> None:
        """End the keeper and wait for it."""
        done = threading.Event()

        def end() -> None:
            with self._lock:
                self._closed = True
                self._send(ENCODE(("quit",)))
                self._site.reactor.remove_reader(self._sock)
                self._sock.close()
                self._drop_backlog()
            done.set()

        if self._closed:
            return
        listeners.remove(self._preload)
        self._site.reactor.call_soon_threadsafe(end)
        done.wait()
        self._bid_farewell()

    def abandon(self) -> None:
        """The reactor is gone, so nobody can listen any more: the keeper and all processes end, and count as ended."""
        with self._lock:
            self._closed = True
            self._sock.close()
            self._drop_backlog()
            everybody = {*self._newborns.values(), *self._adopted}
        if self._preload in listeners:
            listeners.remove(self._preload)
        for newborn in everybody:
            newborn.abandon()
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
        self._drop_backlog()
        for newborn in {*self._newborns.values(), *self._adopted}:
            newborn.drop()

    def __repr__(self) -> str:
        return f"KeeperClient(pid={self._program.pid}, workers={len(self._newborns)})"
