"""What a service manager is told of a tree that runs in the foreground: the protocol of systemd, `sd_notify(3)`.

A datagram to `$NOTIFY_SOCKET` holds lines such as `READY=1`. With a watchdog, `$WATCHDOG_USEC`, the manager restarts
a service that has not sent `WATCHDOG=1` for that time. A thread sends it at half that time, and only if the
supervision has answered just before: a program whose supervision is stuck is a program that has to be restarted.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from suitkaise.escapes import one_line, shortened
from suitkaise.events import Event, SupervisorStopping
from suitkaise.platform.condition import Condition
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import OwnThread
from suitkaise.runtime.health import trouble
from suitkaise.status import Status, TreeStatus

if TYPE_CHECKING:
    from suitkaise.runtime.running_tree import RunningTree

__all__ = ["ServiceManager"]

logger: QueuedLogger = QueuedLogger("suitkaise")

PAUSE = 0.5
"""Seconds, at least, between two statuses; a storm of restarts gives no storm of datagrams."""

_PATIENCE = 5.0
"""Seconds for which a datagram waits for room in the manager's queue."""

_CLOSE = 1.0
"""Seconds that the thread gets to end; it may wait for a supervision that does not answer."""

LONGEST_STATUS = 300
"""Bytes of a status, which `systemctl status` shows on one line."""


class ServiceManager:
    """Tells the service manager how a tree is, from the end of its start to its own end; a context manager.

    Args:
        address: the path of the manager's socket; `@name` is an abstract one.
        watchdog: seconds within which the manager wants to hear from the service; None: no watchdog.
    """

    def __init__(self, address: str, watchdog: float | None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._interval = None if watchdog is None else watchdog / 2
        self._condition = Condition()
        self._last: Event | None = None
        self._changed = False  # since the last status
        self._stopping: SupervisorStopping | None = None
        self._told_stopping = False
        self._closed = False
        self._complained = False
        self._running: RunningTree | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def from_environment(cls) -> ServiceManager | None:
        """Return the service manager of this program, and remove it from the environment; None if there is none.

        What the program starts must not speak for the service, so it must not find the socket.
        """
        address = os.environ.pop("NOTIFY_SOCKET", "")
        timeout, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        if not address:
            return None
        if address[0] not in "/@":
            logger.warning("NOTIFY_SOCKET is %r, which is neither a path nor an abstract socket (@name)", address)
            return None
        # As PID 1 of a container the program runs in a child of the process that was meant, see `init_process`.
        meant = pid in ("", str(os.getpid())) or (pid == "1" and os.getppid() == 1)
        return cls(address, int(timeout) / 1e6 if meant and timeout.isdecimal() and int(timeout) > 0 else None)

    def __enter__(self) -> Self:
        self._send("STATUS=starting")
        return self

    def watch(self, running: RunningTree) -> None:
        """Tell that the tree is up, and from now on what changes."""
        self._running = running
        running._runtime.bus.subscribe(self._on_event)
        self._send("READY=1", self._status(running))
        thread = OwnThread(self._serve, "suitkaise-notify", (running,))
        thread.start()
        self._thread = thread

    def __exit__(self, *error: object) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(_CLOSE)
        if self._running is not None:
            self._running._runtime.bus.unsubscribe(self._on_event)
        self._tell_stopping()

    def _on_event(self, event: Event) -> None:
        if self._running is None or event.path.partition("/")[0] != self._running.name:
            return
        with self._condition:
            self._last, self._changed = event, True
            if isinstance(event, SupervisorStopping) and event.path == self._running.name:
                self._stopping = event
            self._condition.notify()

    # ------------------------------------------------------------ the thread
    def _serve(self, running: RunningTree) -> None:
        status_at, watchdog_at = 0.0, math.inf if self._interval is None else 0.0
        while True:
            with self._condition:
                wait = min(watchdog_at, status_at if self._changed else math.inf) - time.monotonic()
                if wait > 0 and not self._closed and (self._stopping is None or self._told_stopping):
                    self._condition.wait(None if wait == math.inf else wait)
                if self._closed:
                    return
            now = time.monotonic()
            if self._stopping is not None:
                self._tell_stopping()
            if self._changed and now >= status_at:
                self._changed, status_at = False, now + PAUSE
                try:
                    self._send(self._status(running))
                except Exception:  # the watchdog must be told nevertheless
                    logger.exception("the service manager cannot be told how %r is", running.name)
            if self._interval is not None and now >= watchdog_at:
                watchdog_at = now + self._interval
                self._tell_alive(running, self._interval)

    def _tell_alive(self, running: RunningTree, patience: float) -> None:
        what = trouble(running._runtime.reactor, running._root, patience)
        if what is None:
            self._send("WATCHDOG=1")
        elif not running._ended.is_set():
            logger.error("the watchdog of the service manager is not told that %r is alive: %s", running.name, what)

    def _tell_stopping(self) -> None:
        if self._told_stopping:
            return
        self._told_stopping = True
        why = "" if self._stopping is None else self._stopping.why
        if not why and self._running is not None:
            why = str(self._running._reason or "")  # the tree had ended before `watch`
        self._send("STOPPING=1", *([_line(f"stopping: {why}")] if why else []))

    def _status(self, running: RunningTree) -> str:
        workers = [one for one in _below(running.status()) if one.kind != "supervisor"]
        alive = sum(one.status in (Status.RUNNING, Status.SUSPENDED) for one in workers)
        counted = f"{len(workers)} worker{'s' * (len(workers) != 1)}"
        text = counted if alive == len(workers) else f"{alive} of {counted} up"
        return _line(text if self._last is None else f"{text}; last: {self._last}")

    def _send(self, *lines: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("the service manager cannot be told of this service at %r: %s", self._address, error)


def _line(status: str) -> str:
    """Return the line that tells a status: the text of an error in it must not begin a line of its own."""
    return f"STATUS={one_line(shortened(status, LONGEST_STATUS))}"


def _below(status: TreeStatus) -> Iterator[TreeStatus]:
    for child in status.children:
        yield child
        yield from _below(child)
